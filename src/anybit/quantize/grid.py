"""The values a weight may take once its scales and zero points are fixed, column by column."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.formats.integer import Int


class Grid:
    """Rounds single columns of a weight [rows, columns] onto (value - zero) * scale with the given block parameters.

    scale: float [row blocks, column blocks], tensor scale multiplied in.  zero: decoded values on the same grid, or
    None.
    """

    def __init__(
        self, fmt: TensorFormat, shape: tuple[int, int], scale: Tensor, zero: Tensor | None, dtype: torch.dtype
    ) -> None:
        rows, columns = shape
        self._width = fmt.block[1] or columns
        self._round = _rounder(fmt)
        # [column blocks, rows]: the parameters of one column are one contiguous row.
        self._scale = _per_row(scale.to(dtype), fmt, rows)
        # A scale of zero stands for a block of zeros; dividing by 1 there keeps the arithmetic finite.
        self._divisor = torch.where(self._scale == 0, torch.ones((), dtype=dtype), self._scale)
        self._zero = None if zero is None else _per_row(zero.to(dtype), fmt, rows)

    def round(self, column: int, values: Tensor) -> Tensor:
        """The representable values [rows] for `values` [rows] of one column."""
        block = column // self._width
        quotient = values / self._divisor[block]
        if self._zero is None:
            return self._round(quotient) * self._scale[block]
        zero = self._zero[block]
        return (self._round(quotient + zero) - zero) * self._scale[block]


def _per_row(parameters: Tensor, fmt: TensorFormat, rows: int) -> Tensor:
    return parameters.repeat_interleave(fmt.block[0] or rows, dim=0)[:rows].T.contiguous()


def _rounder(fmt: TensorFormat) -> Callable[[Tensor], Tensor]:
    element = fmt.element
    if isinstance(element, Int):
        # The same as Int.round without its checks, which would dominate a single column.
        low, high = element.min, element.max
        return lambda x: torch.round(x).clamp_(low, high)
    return element.round
