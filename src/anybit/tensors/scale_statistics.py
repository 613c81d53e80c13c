"""Scale rules that need one number of a block: "gaussian" (its root mean square) and "four_over_six" (its largest magnitude).

gaussian.  Panferov, Chen, Tabesh, Castro, Nikdan, Alistarh, "QuEST" (arXiv 2502.05003) and "Quartet" (arXiv 2505.14669): after a rotation
numbers are nearly normal, so the scale is the one of least squared error for a normal distribution, times the root mean square.
Rounded to a power of two for e8m0 it goes up from 4/3 on: the floor of the published code clips 5 % of the numbers.
four_over_six.  Cook, Guo, Xiao, Lin, Han, "Four Over Six: more accurate NVFP4 quantization with adaptive block scaling" (arXiv 2512.02010):
E2M1 has nothing between 4 and 6, so a block whose largest magnitude becomes 4 may err less than one where it becomes 6. The tensor scale
leaves room for the larger block scale.
"""

from __future__ import annotations

from functools import cache
from math import erf, exp, pi, sqrt

import numpy as np
import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Exponent, Format, TensorFormat
from anybit.tensors import block_errors, blocks
from anybit.tensors.scale_search import Best, importance_weights
from anybit.tensors.scales import PowerRounding, load_scale, power_of_two, range_parameters, store_scale


def second_ratio(fmt: TensorFormat) -> float:
    """Largest over second largest value of the element format: 1.5 for e2m1. FormatError with zero points or below two positive values."""
    values = np.unique(fmt.element.values) if fmt.element.bits <= 16 else np.zeros(1)
    if fmt.zero is not None or np.sum(values > 0) < 2:
        raise FormatError(
            f"the scale rule 'four_over_six' needs two positive values and no zero points; got {fmt.element.name}"
        )
    return float(values[-1] / values[-2])


def four_over_six_parameters(
    matrix: Tensor, fmt: TensorFormat, low: Tensor, high: Tensor, factor: Tensor | None, importance: Tensor | None
) -> tuple[Tensor, None]:
    """(scale [row blocks, col blocks], None): of the two scales the one that errs less; arguments as of `scale_search.mse_parameters`."""
    rows, cols = matrix.shape
    weights = importance_weights(importance, rows, cols, fmt)
    scales, _ = range_parameters(low, high, fmt, factor)
    larger, _ = range_parameters(low, high, fmt, factor, second_ratio(fmt))
    for part, errors in block_errors.bands(matrix, weights, fmt, factor):
        best = Best(scales[part], None, torch.ones_like(scales[part]), errors.of(scales[part], None))
        scales[part] = best.or_better(larger[part], None, 1.0, errors.of(larger[part], None)).scale
    return scales, None


def gaussian_parameters(
    matrix: Tensor, fmt: TensorFormat, factor: Tensor | None, power: PowerRounding | None
) -> tuple[Tensor, None]:
    """(scale [row blocks, col blocks], None) from the root mean square of each block of matrix [rows, cols]."""
    assert fmt.scale is not None, "callers have refused unscaled formats"
    if fmt.zero is not None:
        raise FormatError(f"the scale rule 'gaussian' knows no zero points; use 'mse' for {fmt}")
    rows, cols = matrix.shape
    tall = fmt.block[0]
    total, count = torch.zeros(fmt.grid((rows, cols))), torch.zeros(fmt.grid((rows, cols)))
    total, count = total.to(matrix.device), count.to(matrix.device)
    for band in blocks.bands(rows, cols, tall):
        for a, b in band:
            chunk = blocks.blocked(matrix[a:b].float(), fmt.block)
            first = a // tall if tall else 0
            total[first : first + chunk.shape[0]] += chunk.square().sum((1, 3))
            count[first : first + chunk.shape[0]] += blocks.blocked(
                torch.ones(b - a, cols, device=matrix.device), fmt.block
            ).sum((1, 3))
    wanted = gaussian_scale(fmt.element) * (total / count).sqrt()
    if factor is not None:
        wanted = wanted / factor
    if isinstance(fmt.scale, Exponent):
        wanted = power_of_two(wanted, power or "four_thirds")
    return load_scale(store_scale(wanted, fmt.scale), fmt.scale), None


@cache
def gaussian_scale(element: Format) -> float:
    """The scale s of least E[(x - s round(x / s))^2] for a standard normal x, to four digits; integrals in closed form."""
    if element.bits > 8:
        raise FormatError(
            f"the scale rule 'gaussian' is for elements of up to 8 bits; {element.name} has {element.bits}"
        )
    levels = np.unique(element.values)
    size = np.abs(levels[levels != 0])
    # Posits have most of their values far below the largest one.
    grid = np.geomspace(0.3 / size.max(), max(8 / size.max(), 4 / np.median(size)), 600)
    for _ in range(3):
        errors = [gaussian_error(levels, s) for s in grid]
        best = int(np.argmin(errors))
        grid = np.geomspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 30)
    return float(grid[int(np.argmin([gaussian_error(levels, s) for s in grid]))])


def gaussian_error(levels: np.ndarray, scale: float) -> float:
    """E[(x - s q)^2] of a standard normal x rounded to the nearest of ascending levels times s."""
    points = scale * levels
    edges = [-np.inf, *((points[1:] + points[:-1]) / 2).tolist(), np.inf]
    total = 0.0
    for q, a, b in zip(points.tolist(), edges[:-1], edges[1:], strict=True):
        mass = (erf(b / sqrt(2)) - erf(a / sqrt(2))) / 2
        fa, fb = (exp(-t * t / 2) / sqrt(2 * pi) if abs(t) < 40 else 0.0 for t in (a, b))
        second = mass - (b * fb if fb else 0.0) + (a * fa if fa else 0.0)
        total += second - 2 * q * (fa - fb) + q * q * mass
    return total
