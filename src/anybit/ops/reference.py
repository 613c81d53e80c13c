"""What the ops mean, in torch: slow, readable, on any device. Kernels are tested against this."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anybit import formats
from anybit.formats import TensorFormat
from anybit.tensors import QTensor, quantize


def act_group(act: str | TensorFormat | None) -> int | None:
    """Columns that share an activation scale in the integer kernels (0: the row); None for formats they do not take."""
    if act is None:
        return None
    fmt = TensorFormat.parse(act) if isinstance(act, str) else act
    rows, cols = fmt.block
    plain = fmt.element.name == "int8" and fmt.zero is None and not fmt.tensor_scale and rows == 1
    return cols if plain and cols % 32 == 0 else None


def round_activations(x: Tensor, act: TensorFormat | None) -> Tensor:
    """x [..., k] as the values its quantized form stands for; itself where act is None. Every row has scales of its own.

    Scales of int8 activations are never stored, so they stay in float32 whatever the spec would store them in.
    """
    if act is None or not x.numel():
        return x
    if act_group(act) is not None:
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
