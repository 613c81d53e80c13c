"""The scale rule "mse": for each block, the scale (and zero point) of least sum(importance * (x - dequantized)^2), by search.

1. A coarse sweep over fractions of the absmax scale (with zero points: of the block's range), each as its format stores it. Formats that
   are not symmetric (two's complement, nf4) and have up to 5 bits also try negative scales, which mirror the grid: on Gaussian,
   Laplace and Student-t blocks of 128 worth 0.4-0.6 dB for int2 to int4, 0.25 dB for int5, 0.2 dB for nf4; beyond below 0.1 dB.
2. A finer sweep around the best of each block.
3. Twice: the scale that is optimal for the codes of the best so far, <x, q> / <q, q>.

A candidate is taken only where it lowers the error, so the result is never worse than absmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Exponent, Float, Int, TensorFormat
from anybit.tensors import block_errors
from anybit.tensors.scales import range_parameters


@dataclass(frozen=True)
class Sweep:
    """Fractions of the absmax scale (coarse, beside 1), then multiples of the best so far (fine), then closed-form steps."""

    coarse: tuple[float, ...]
    fine: tuple[float, ...]
    closed_forms: int


def sweep(fmt: TensorFormat) -> Sweep:
    """What is tried for a format.

    Few bits clip more of the range. The error of a floating format nearly repeats with every doubling of the scale, so its sweep covers
    a binade and more, above 1 too (the largest magnitude may fit a smaller value better): 0.5 dB for e2m1 in blocks of 16. Its error,
    like that of nf4, is also the most jagged, so beyond 4 bits the whole sweep is fine. Elsewhere half the steps gain less than 0.1 dB
    (blocks of 128).
    """
    if isinstance(fmt.scale, Exponent):
        return Sweep((2.0, 0.5, 0.25, 0.125)[: 2 if fmt.bits > 4 else 3 if fmt.bits > 2 else 4], (), 0)
    if isinstance(fmt.element, Float) and fmt.bits > 4:
        return Sweep(_steps(1.75, 0.4, 0.97), (), 2)
    if isinstance(fmt.element, Float) or fmt.element.eps < 1:
        return Sweep(_steps(1.75, 0.2, 0.93), (1.035, 0.965, 1.017, 0.983), 2)
    if fmt.bits >= 5:
        return Sweep(_steps(1.1, 0.5 if fmt.bits >= 7 else 0.3, 0.9), (1.05, 0.95, 1.025, 0.975), 2)
    lowest = 0.2 if fmt.bits >= 3 else 0.06
    return Sweep(_steps(1.24, lowest, 0.86), (1.07, 0.93, 1.03, 0.97), 2)


def _steps(highest: float, lowest: float, ratio: float) -> tuple[float, ...]:
    return tuple(highest * ratio**k for k in range(1 + int(log(lowest / highest) / log(ratio))))


@dataclass(frozen=True)
class Best:
    """The best parameters so far of each block: all [row blocks, col blocks]."""

    scale: Tensor
    zero: Tensor | None
    shrink: Tensor
    error: Tensor

    def or_better(self, scale: Tensor, zero: Tensor | None, shrink: Tensor | float, error: Tensor) -> Best:
        wins = error < self.error
        return Best(
            torch.where(wins, scale, self.scale),
            None if self.zero is None or zero is None else torch.where(wins, zero, self.zero),
            torch.where(wins, shrink, self.shrink),
            torch.where(wins, error, self.error),
        )

    def or_best(self, scales: Tensor, zeros: Tensor | None, shrinks: Tensor, errors: Tensor) -> Best:
        """`or_better` of the one of least error among several: all but shrinks [trials] are [trials, row blocks, col blocks]."""
        error, at = errors.min(0)
        scale = scales.gather(0, at[None])[0]
        return self.or_better(scale, None if zeros is None else zeros.gather(0, at[None])[0], shrinks[at], error)


def mse_parameters(
    matrix: Tensor, fmt: TensorFormat, low: Tensor, high: Tensor, factor: Tensor | None, importance: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """(scale, zero) [row blocks, col blocks] of matrix [rows, cols], float32 values of their formats.

    low, high: the range of each block; factor: the tensor scale; importance: [cols], [rows, cols] or None.
    """
    rows, cols = matrix.shape
    weights = importance_weights(importance, rows, cols, fmt)
    scales, zeros = range_parameters(low, high, fmt, factor)
    plan = sweep(fmt)
    signs = (1.0, -1.0) if mirrored(fmt) else (1.0,)
    tried = torch.tensor([sign * fraction for fraction in plan.coarse for sign in signs], device=matrix.device).float()
    for part, errors in block_errors.bands(matrix, weights, fmt, factor):
        scale, zero = scales[part], None if zeros is None else zeros[part]
        best = Best(scale, zero, torch.ones_like(scale), errors.of(scale, zero))

        given = range_parameters(low[part], high[part], fmt, factor, tried[:, None, None])
        best = best.or_best(*given, tried, errors.of_each(*given))
        for multiple in plan.fine:
            shrink = best.shrink * multiple
            scale, zero = range_parameters(low[part], high[part], fmt, factor, shrink)
            best = best.or_better(scale, zero, shrink, errors.of(scale, zero))
        for _ in range(plan.closed_forms):
            scale = errors.closed_form(best.scale, best.zero)
            best = best.or_better(scale, best.zero, best.shrink, errors.of(scale, best.zero))
        scales[part] = best.scale
        if zeros is not None and best.zero is not None:
            zeros[part] = best.zero
    return scales, zeros


def mirrored(fmt: TensorFormat) -> bool:
    """Is the negated scale another grid worth trying?"""
    element, scale = fmt.element, fmt.scale
    if fmt.zero is not None or element.bits > 5 or scale is None or scale.min >= 0 or element.min >= 0:
        return False
    grid = np.sort(element.values)
    return not np.array_equal(grid, -grid[::-1])


def importance_weights(importance: Tensor | None, rows: int, cols: int, fmt: TensorFormat) -> Tensor | None:
    """importance as [1 or rows, cols] float32; ones where padding must be masked because the element format has no zero."""
    if importance is None:
        element = fmt.element
        if fmt.zero is not None or isinstance(element, Int) or 0.0 in element.values:
            return None
        return torch.ones(1, cols)
    weights = importance.float().contiguous()  # a Hessian's diagonal is strided, and read hundreds of times
    weights = weights[None] if weights.ndim == 1 else weights
    if weights.shape not in ((1, cols), (rows, cols)) or not bool((weights >= 0).all()):
        raise FormatError(
            f"importance must be non-negative [{cols}] or [{rows}, {cols}]; got the shape {list(importance.shape)}"
        )
    return weights
