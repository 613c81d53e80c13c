"""What the ops mean, in torch: slow, readable, on any device. Kernels are tested against this."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anybit import formats
from anybit.formats import TensorFormat
from anybit.formats.integer import Int
from anybit.tensors import QTensor, quantize


@dataclass(frozen=True)
class IntegerActivations:
    """Activations that integer kernels round themselves: two's complement of `bits` bits (2 to 8), `group` columns a scale (0: the row)."""

    bits: int
    group: int

    @property
    def levels(self) -> int:
        """The largest code; the smallest is its negative."""
        return (1 << (self.bits - 1)) - 1


def integer_act(act: str | TensorFormat | None) -> IntegerActivations | None:
    """What the integer kernels are told of activations; None for formats they do not take."""
    if act is None:
        return None
    fmt = TensorFormat.parse(act) if isinstance(act, str) else act
    rows, cols = fmt.block
    element = fmt.element
    # int2 = {-2, -1, 0, 1} has scales with signs of their own; only its narrow form is symmetric
    signed = isinstance(element, Int) and element.signed and 2 + (not element.narrow) <= element.bits <= 8
    if not signed or fmt.scale is None or fmt.zero is not None or fmt.tensor_scale or rows != 1 or cols % 32:
        return None
    return IntegerActivations(element.bits, cols)


def round_activations(x: Tensor, act: TensorFormat | None) -> Tensor:
    """x [..., k] as the values its quantized form stands for; itself where act is None. Every row has scales of its own.

    Scales of integer activations are never stored, so they stay in float32 whatever the spec would store them in.
    """
    if act is None or not x.numel():
        return x
    if integer_act(act) is not None:
        act = replace(act, scale=formats.get("fp32"))
    if act.scale is None:
        return act.element.round(
            x.float()
        )  # by the native casts, whose threads do not spin beside those of the product
    rows = x.reshape(-1, x.shape[-1]).float()
    return quantize(rows, act).dequantize().reshape(x.shape)


def dense(w: QTensor | Tensor, dtype: torch.dtype) -> Tensor:
    """The values of a weight."""
    return w.dequantize(dtype) if isinstance(w, QTensor) else w.to(dtype)


def matmul(
    x: Tensor,
    w: QTensor | Tensor,
    bias: Tensor | None = None,
    act: TensorFormat | None = None,
    compute: torch.dtype = torch.float32,
) -> Tensor:
    """x [..., k] times w [n, k] transposed, plus bias [n]; `compute` is the dtype of products, sums and result."""
    y = round_activations(x, act).to(compute) @ dense(w, compute).T
    return y if bias is None else y + bias.to(compute)


def embedding(ids: Tensor, w: QTensor | Tensor) -> Tensor:
    """Rows [..., k] of w [n, k] in float32 for integer ids."""
    return dense(w, torch.float32)[ids]
