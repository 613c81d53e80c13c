"""What the ops mean, in torch: slow, readable, on any device. Kernels are tested against this."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from anybit import formats
from anybit.formats import Exponent, Int, TensorFormat
from anybit.ops.static import StaticActivations
from anybit.tensors import QTensor, quantize
from anybit.tensors.scales import PowerRounding


@dataclass(frozen=True)
class IntegerActivations:
    """Activations that integer kernels round themselves: two's complement of `bits` bits, `group` columns a scale (0: the row).

    whole: "any" or "power" (of two, the smallest that clips nothing) where there is one scale for all rows, found in them.
    scale: one for all rows that is known beforehand, else 0.
    """

    bits: int
    group: int
    whole: Literal["", "any", "power"] = ""
    scale: float = 0.0

    @property
    def levels(self) -> int:
        """The largest code; the smallest is its negative."""
        return (1 << (self.bits - 1)) - 1


def integer_act(act: str | TensorFormat | StaticActivations | None, tiles: bool = False) -> IntegerActivations | None:
    """What the integer kernels are told of activations of 2 to 8 bits with a scale a row or group; None for formats they do not take.

    tiles: what weights in tiles take besides, activations of 16 bits (for weights of as many) and one scale for all rows, static or not.
    """
    if act is None:
        return None
    if isinstance(act, StaticActivations):
        whole = isinstance(act.format.element, Int) and tiles
        return IntegerActivations(act.format.element.bits, 0, scale=act.scale) if whole else None
    fmt = TensorFormat.parse(act) if isinstance(act, str) else act
    rows, cols = fmt.block
    element = fmt.element
    # int2 = {-2, -1, 0, 1} has scales with signs of their own; only its narrow form is symmetric
    least, most = 3, 16 if tiles else 8
    signed = isinstance(element, Int) and element.signed and least - element.narrow <= element.bits <= most
    if not signed or fmt.scale is None or fmt.zero is not None or fmt.tensor_scale:
        return None
    if tiles and fmt.block == (0, 0):
        return IntegerActivations(element.bits, 0, "power" if isinstance(fmt.scale, Exponent) else "any")
    return None if rows != 1 or cols % 32 else IntegerActivations(element.bits, cols)


def round_activations(x: Tensor, act: TensorFormat | StaticActivations | None) -> Tensor:
    """x [..., k] as the values its quantized form stands for; itself where act is None. Rows have scales of their own but for …/tensor
    and static ones.

    Scales of integer activations are never stored, so they stay in float32 whatever the spec would store them in; but one for all rows
    that is e8m0 is the smallest power of two that clips nothing.
    """
    if act is None or not x.numel():
        return x
    if isinstance(act, StaticActivations):
        return act.round(x)
    integers = integer_act(act, tiles=True)
    if integers is not None and integers.whole != "power":
        act = replace(act, scale=formats.get("fp32"))
    if act.scale is None:
        return act.element.round(
            x.float()
        )  # by the native casts, whose threads do not spin beside those of the product
    rows = x.reshape(-1, x.shape[-1]).float()
    power: PowerRounding | None = "ceil" if integers is not None and integers.whole == "power" else None
    return quantize(rows, act, power=power).dequantize().reshape(x.shape)


def dense(w: QTensor | Tensor, dtype: torch.dtype) -> Tensor:
    """The values of a weight."""
    return w.dequantize(dtype) if isinstance(w, QTensor) else w.to(dtype)


def matmul(
    x: Tensor,
    w: QTensor | Tensor,
    bias: Tensor | None = None,
    act: TensorFormat | StaticActivations | None = None,
    compute: torch.dtype = torch.float32,
) -> Tensor:
    """x [..., k] times w [n, k] transposed, plus bias [n]; `compute` is the dtype of products, sums and result."""
    y = round_activations(x, act).to(compute) @ dense(w, compute).T
    return y if bias is None else y + bias.to(compute)


def embedding(ids: Tensor, w: QTensor | Tensor) -> Tensor:
    """Rows [..., k] of w [n, k] in float32 for integer ids."""
    return dense(w, torch.float32)[ids]
