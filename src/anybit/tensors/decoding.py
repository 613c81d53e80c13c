"""The values of a packed matrix in one native pass, with the bits that `QTensor.dequantize` gives without it.

`QTensor.dequantize` asks here first; None means that the readable code does the work: elements of more than 8 bits, complex ones, other
devices, tracers, small matrices, and codes that no value belongs to (so that there is one place for error messages).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.formats import TensorFormat, arrays, native


def dequantized(codes: Tensor, fmt: TensorFormat, cols: int, scales: Tensor, zeros: Tensor | None) -> Tensor | None:
    """float32 [rows, cols] of packed codes [rows, bytes]; scales and zeros are float32 [row blocks, col blocks]."""
    module = native.module()
    if module is None or fmt.bits > 8 or not native.usable_tensor(codes) or not all(map(_plain, (scales, zeros))):
        return None
    values = native.values(fmt.element)
    if values is None:
        return None
    rows, (tall, wide) = codes.shape[0], fmt.block
    out = native.empty(rows * cols, np.float32)
    known = module.dequantize_blocks(
        values,
        fmt.bits,
        _flat(codes),
        rows,
        cols,
        tall or rows,
        wide or cols,
        _flat(scales),
        None if zeros is None else _flat(zeros),
        out,
    )
    return torch.from_numpy(out).reshape(rows, cols) if known else None


def _plain(x: Tensor | None) -> bool:
    """Numbers that no gradient and no tracer watches, or none at all."""
    return x is None or (arrays.has_values(x) and not (x.requires_grad and torch.is_grad_enabled()))


def _flat(x: Tensor) -> NDArray[Any]:
    flat: NDArray[Any] = x.detach().contiguous().reshape(-1).numpy()
    return flat
