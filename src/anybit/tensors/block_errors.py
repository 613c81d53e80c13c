"""Squared errors of blocks for scales and zero points that are tried, and the scale of least error for codes that are given.

The readable code takes any block anywhere. Groups of columns and whole rows in memory, of formats that the casts know, are tried by
compiled code (native/generic/block_trials.cc), many parameters while a part of a row is in the first cache; it rounds alike and adds in
another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from anybit.formats import Int, TensorFormat, native
from anybit.tensors import blocks
from anybit.tensors.scales import load_scale, store_scale

TOGETHER, MOST_BLOCKS = 1 << 21, 1 << 17
"""Elements, and blocks, that compiled code tries scales for at a time: more than a chunk, because what torch does is for blocks alone."""


def bands(
    matrix: Tensor, weights: Tensor | None, fmt: TensorFormat, factor: Tensor | None
) -> Iterator[tuple[slice, BlockErrors]]:
    """The row blocks of each band of matrix [rows, cols], and their errors; weights: [1 or rows, cols], factor: the tensor scale."""
    (rows, cols), tall = matrix.shape, fmt.block[0]
    compiled = _NativeErrors.cast(matrix, fmt) is not None
    chunk = min(TOGETHER, MOST_BLOCKS * (fmt.block[1] or cols)) if compiled else None
    for band in blocks.bands(rows, cols, tall, chunk):
        first = band[0][0] // tall if tall else 0
        last = -(-band[-1][1] // tall) if tall else 1
        yield slice(first, last), BlockErrors(matrix, weights, fmt, factor, band)


def _of_rows(weights: Tensor, first: int, last: int, device: torch.device) -> Tensor:
    """The weights [1 or last - first, cols] of these rows."""
    return (weights if weights.shape[0] == 1 else weights[first:last]).to(device)


class BlockErrors:
    """The blocks of one band, and the squared error of given parameters. A band of one chunk is read once, others every time."""

    def __init__(
        self,
        matrix: Tensor,
        weights: Tensor | None,
        fmt: TensorFormat,
        factor: Tensor | None,
        band: list[tuple[int, int]],
    ) -> None:
        self.matrix, self.weights, self.fmt, self.factor, self.band = matrix, weights, fmt, factor, band
        self.native = _NativeErrors.of_band(matrix, weights, fmt, band)
        self.kept = list(self._read()) if len(band) == 1 and self.native is None else None

    def _read(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for a, b in self.band:
            weight = self.weights
            if weight is not None:
                weight = blocks.blocked(_of_rows(weight, a, b, self.matrix.device).expand(b - a, -1), self.fmt.block)
            yield blocks.blocked(self.matrix[a:b].float(), self.fmt.block), weight

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return iter(self.kept) if self.kept is not None else self._read()

    def _quantized(self, value: Tensor, scale: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        """(decode(code) - zero, a tensor of its own; the step it is multiplied by)."""
        step = self._steps(scale)[:, None, :, None]
        units = value / torch.where(step == 0, 1.0, step)
        element, offset = self.fmt.element, None if zero is None else zero[:, None, :, None]
        if offset is not None:
            units += offset
        # For integers what `round` does, in place: the sweep spends its time here.
        units = units.round_().clamp_(element.min, element.max) if isinstance(element, Int) else element.round(units)
        if offset is not None:
            units -= offset
        return units, step

    def of_each(self, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """`of` for each of several parameters: all [trials, row blocks, col blocks]."""
        if self.native is not None:
            return self.native.errors(self._steps(scales), zeros)
        return torch.stack([self.of(scale, None if zeros is None else zeros[t]) for t, scale in enumerate(scales)])

    def _steps(self, scale: Tensor) -> Tensor:
        return scale if self.factor is None else scale * self.factor

    def of(self, scale: Tensor, zero: Tensor | None) -> Tensor:
        """Weighted squared error [row blocks, col blocks] of these float parameters."""
        if self.native is not None:
            return self.native.errors(self._steps(scale), zero)
        total = torch.zeros_like(scale)
        for value, weight in self._chunks():
            units, step = self._quantized(value, scale, zero)
            wrong = units.mul_(step).sub_(value).square_()
            total += (wrong if weight is None else wrong.mul_(weight)).sum((1, 3))
        return total

    def closed_form(self, scale: Tensor, zero: Tensor | None) -> Tensor:
        """The scale of least error for the codes that `scale` gives, as its format stores it; `scale` where it is undefined."""
        assert self.fmt.scale is not None, "callers have refused unscaled formats"
        if self.native is not None:
            xq, qq = self.native.projections(self._steps(scale), zero)
        else:
            xq, qq = self._projections(scale, zero)
        found = xq / torch.where(qq == 0, 1.0, qq)
        found = found if self.factor is None else found / self.factor
        usable = (qq > 0) & (found > 0 if self.fmt.scale.min >= 0 else found != 0)
        found = torch.where(usable, found, scale)
        return load_scale(store_scale(found, self.fmt.scale), self.fmt.scale)

    def _projections(self, scale: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        """<x, q> and <q, q> of each block, weighed."""
        xq, qq = torch.zeros_like(scale), torch.zeros_like(scale)
        for value, weight in self._chunks():
            units, _ = self._quantized(value, scale, zero)
            weighted = units if weight is None else units * weight
            xq += (value * weighted).sum((1, 3))
            qq += (units * weighted).sum((1, 3))
        return xq, qq


@dataclass(frozen=True)
class _NativeErrors:
    """The blocks of a band for compiled code: [rows, cols] in blocks of `width` columns."""

    module: ModuleType
    grid: Any
    x: Tensor
    weights: Tensor | None
    width: int

    @staticmethod
    def cast(matrix: Tensor, fmt: TensorFormat) -> native.Cast | None:
        """That of the elements; None where the kernels lack the format, or blocks are several rows high, or the matrix is elsewhere."""
        if fmt.block[0] != 1 or not native.usable_tensor(matrix) or not matrix.is_floating_point():
            return None
        return native.prepare(fmt.element, "nearest_even", None)

    @classmethod
    def of_band(
        cls, matrix: Tensor, weights: Tensor | None, fmt: TensorFormat, band: list[tuple[int, int]]
    ) -> _NativeErrors | None:
        """None where there is no `cast`."""
        cast = cls.cast(matrix, fmt)
        if cast is None:
            return None
        first, last = band[0][0], band[-1][1]
        if weights is not None:
            weights = _of_rows(weights.detach(), first, last, matrix.device).contiguous()
        x = matrix.detach()[first:last].float().contiguous()
        return cls(cast.module, cast.grid, x, weights, fmt.block[1] or x.shape[1])

    def errors(self, steps: Tensor, zeros: Tensor | None) -> Tensor:
        """[trials, rows, blocks] as the steps and zero points are."""
        out = torch.empty(steps.shape, dtype=torch.float32)
        self._run(self.module.block_errors, steps, zeros, out)
        return out

    def projections(self, steps: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor]:
        """<x, q> and <q, q>, weighed, [rows, blocks] as the steps and zero points are."""
        on_x, norms = (torch.empty(steps.shape, dtype=torch.float32) for _ in range(2))
        self._run(self.module.block_projections, steps, zeros, on_x, norms)
        return on_x, norms

    def _run(self, kernel: Callable[..., None], steps: Tensor, zeros: Tensor | None, *out: Tensor) -> None:
        trials = 1 if steps.ndim == 2 else steps.shape[0]
        flat = [None if t is None else t.contiguous().view(trials, -1).numpy() for t in (steps, zeros, *out)]
        weights = None if self.weights is None else self.weights.numpy()
        kernel(self.grid, self.x.numpy(), weights, self.width, *flat)
