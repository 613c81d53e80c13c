"""absmax quantization of a matrix in one native pass: the scales of blocks, the codes against them, and the packing, with the same bits
as `block_scales` and `encode` give.

`quantize` asks here first; None means that the readable code does the work. The kernels take blocks of columns in one row (groups and
whole rows), elements with both signs of up to 8 bits, every type of scale and the tensor scale; no zero points.
"""

from __future__ import annotations

from math import floor, log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anybit.formats import Exponent, Float, Key, Mode, TensorFormat, native
from anybit.tensors.packing import row_bytes
from anybit.tensors.qtensor import QTensor, scale_dtype
from anybit.tensors.scales import LARGEST_BLOCK_SCALE, by_signed_extreme, span_of

_SOURCES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def quantize_absmax(x: Tensor, matrix: Tensor, fmt: TensorFormat, mode: Mode, key: Key | None) -> QTensor | None:
    """The QTensor of x, whose matrix view is `matrix` [rows, cols]; None where the kernels lack the format or refuse the values."""
    cast = _cast(matrix, fmt, mode, key)
    if cast is None:
        return None
    rows, cols = matrix.shape
    assert fmt.scale is not None, "formats without scales were refused"
    storage, span = scale_dtype(fmt.scale), span_of(fmt)
    width = min(fmt.block[1] or cols, cols)
    blocks = -(-cols // width)
    codes = native.empty(rows * row_bytes(cols, fmt.bits), np.uint8)
    scales = native.empty(rows * blocks * storage.itemsize, np.uint8)
    kind = "e8m0" if isinstance(fmt.scale, Exponent) else _TYPES.get(storage, "float8")
    source = matrix.contiguous()
    status, factor = cast.module.quantize_blocks(
        cast.grid,
        cast.mode,
        source.reshape(-1).view(torch.uint8).numpy(),
        _SOURCES[source.dtype],
        rows,
        cols,
        width,
        span,
        floor(log2(span)),
        kind,
        None if kind in ("e8m0", "fp32") else native.grid(fmt.scale),
        fmt.scale.min_positive,
        span * min(fmt.scale.max, LARGEST_BLOCK_SCALE) if fmt.tensor_scale else 0.0,
        codes,
        scales,
        *cast.chance,
    )
    if status != 0:
        return None
    return QTensor(
        torch.from_numpy(codes).reshape(rows, -1),
        torch.from_numpy(scales).view(storage).reshape(rows, blocks),
        None,
        torch.tensor(factor, dtype=torch.float32) if fmt.tensor_scale else None,
        tuple(x.shape),
        fmt,
    )


def _cast(matrix: Tensor, fmt: TensorFormat, mode: str, key: Any) -> native.Cast | None:
    """The cast of the elements where the kernels take this, else None."""
    element, scale = fmt.element, fmt.scale
    if fmt.block[0] != 1 or fmt.zero is not None or element.bits > 8 or not isinstance(scale, Float | Exponent):
        return None
    if element.max <= 0 or element.min >= 0 or by_signed_extreme(fmt) or not matrix.numel():
        return None
    if type(matrix) is not Tensor or matrix.device.type != "cpu" or matrix.dtype not in _SOURCES:
        return None
    if isinstance(scale, Float) and scale.name != "fp32" and native.grid(scale) is None:
        return None
    return native.prepare(element, mode, key)
