"""Scales of blocks: how they are stored, the absmax rule, and the search for the least squared error.

absmax.  Largest magnitude of the block / largest value of the element format, rounded to the scale's format. So two's complement
of b bits divides by 2^(b-1) - 1, and both +absmax and -absmax are on the grid. With 1 and 2 bits, {-1, 0} and {-2, -1, 0, 1}, that would
leave one sign or half the grid unused: there the signed extreme of the block gets the lowest value, scale = extreme / -2^(b-1), and
the scale may be negative (where its format has signs). Measured on Gaussian, Laplace and Student-t blocks of 128 this is
worth 3 to 5 dB at 2 bits. Unsigned elements use the largest positive value.
e8m0 scales follow OCP Microscaling v1.0, section 6.3: 2^(floor(log2 absmax) - floor(log2 element.max)).
With zero points the block's range, widened to hold 0, is spread over all codes: scale = (high - low) / (max - min),
zero = round(min - low / scale).

Tensor scale (`+t`): absmax of the tensor / (element.max * t), with t = min(448, largest scale): the largest block scale becomes t.
For e4m3fn this is the NVFP4 rule, amax / (6 * 448).

Storage. A scale too large for its format becomes the largest value, and the elements saturate; a nonzero one too small becomes the
smallest positive value, so that no block is divided by zero. Blocks of zeros have scale 0 (e8m0: 2^-127).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import numpy as np
import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Exponent, Float, Format, Int, TensorFormat
from anybit.tensors import blocks
from anybit.tensors.qtensor import scale_dtype

_LARGEST_BLOCK_SCALE = 448.0
_TINY = torch.finfo(torch.float32).tiny


def store_scale(scale: Tensor, fmt: Format) -> Tensor:
    """Float scales -> their storage (a torch floating dtype, or uint8 codes), clamped as the module says. Signs are kept."""
    scale = scale.float()
    smallest = torch.where(scale < 0, -fmt.min_positive, fmt.min_positive)
    scale = torch.where((scale != 0) & (scale.abs() < fmt.min_positive), smallest, scale)
    dtype = scale_dtype(fmt)
    return fmt.encode(scale) if dtype == torch.uint8 else scale.clamp(fmt.min, fmt.max).to(dtype)


def load_scale(stored: Tensor, fmt: Format) -> Tensor:
    """The float32 values of stored scales."""
    return fmt.decode(stored) if stored.dtype == torch.uint8 else stored.float()


def value_range(matrix: Tensor, fmt: TensorFormat) -> tuple[Tensor, Tensor]:
    """(smallest, largest) value of each block of matrix [rows, cols], float32 [row blocks, col blocks], widened to hold 0.

    FormatError where a block holds NaN or infinity.
    """
    rows, cols = matrix.shape
    tall = fmt.block[0]
    grid = fmt.grid((rows, cols))
    low, high = (torch.zeros(grid, device=matrix.device) for _ in range(2))
    for band in blocks.bands(rows, cols, tall):
        for a, b in band:
            chunk = blocks.blocked(matrix[a:b].float(), fmt.block)
            first = a // tall if tall else 0
            part = slice(first, first + chunk.shape[0])
            low[part] = torch.minimum(low[part], chunk.amin((1, 3)))
            high[part] = torch.maximum(high[part], chunk.amax((1, 3)))
    if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        kind = "NaN" if bool(torch.isnan(low).any() | torch.isnan(high).any()) else "infinity"
        raise FormatError(f"the tensor to quantize holds {kind}, for which {fmt} has no scale")
    return low, high


def tensor_factor(low: Tensor, high: Tensor, fmt: TensorFormat) -> Tensor | None:
    """The tensor scale, a float32 scalar; None without `+t`. 1 for a tensor of zeros."""
    if not fmt.tensor_scale or fmt.scale is None:
        return None
    absmax = torch.maximum(-low, high).amax() if low.numel() else low.new_zeros(())
    largest = min(fmt.scale.max, _LARGEST_BLOCK_SCALE)
    factor = absmax / (_span(fmt) * largest)
    return torch.where(absmax > 0, factor.clamp(min=_TINY), 1.0)


def absmax_parameters(
    low: Tensor, high: Tensor, fmt: TensorFormat, factor: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """(scale, zero) of the absmax rule from the range of each block; `factor` is the tensor scale. Values of their formats."""
    return _parameters(low, high, fmt, factor, 1.0)


def _span(fmt: TensorFormat) -> float:
    """What the range of a block is divided by."""
    element = fmt.element
    return element.max - element.min if fmt.zero is not None else element.max if element.max > 0 else -element.min


def _by_signed_extreme(fmt: TensorFormat) -> bool:
    element, scale = fmt.element, fmt.scale
    return (
        isinstance(element, Int)
        and element.min < -element.max
        and element.bits <= 2
        and scale is not None
        and scale.min < 0
    )


def _parameters(
    low: Tensor, high: Tensor, fmt: TensorFormat, factor: Tensor | None, shrink: float
) -> tuple[Tensor, Tensor | None]:
    element, scale_format = fmt.element, fmt.scale
    assert scale_format is not None, "callers have refused unscaled formats"
    span = _span(fmt)
    if fmt.zero is not None:
        reach = high - low
    elif element.max <= 0 and scale_format.min >= 0:
        reach = -low
    elif _by_signed_extreme(fmt):
        reach, span = torch.where(-low >= high, -low, -high), -element.min
    elif element.min >= 0:
        reach = high
    else:
        reach = torch.maximum(-low, high)
    reach = reach * shrink
    if factor is not None:
        reach = reach / factor
    if isinstance(scale_format, Exponent):
        top = torch.floor(torch.log2(torch.tensor(span, dtype=torch.float64)))
        # frexp is exact where log2 would round: reach = m * 2^e with m in [0.5, 1).
        exponent = torch.frexp(reach.double()).exponent - 1 - top
        scale = torch.where(reach > 0, torch.exp2(exponent.clamp(-200, 200)), 0.0)
    else:
        scale = reach / span
    scale = load_scale(store_scale(scale, scale_format), scale_format)
    if fmt.zero is None:
        return scale, None
    # float64, so that the quotient of a tie is a tie.
    step = (scale if factor is None else scale * factor).double()
    zero = torch.where(step > 0, element.min - low.double() * shrink / torch.where(step > 0, step, 1.0), 0.0)
    return scale, element.round(zero).float()


def shrink_factors(fmt: TensorFormat) -> list[float]:
    """The fractions of the absmax scale that the search tries, beside 1; falling.

    Few bits clip more of the range, and steps of 7 % are fine enough: with 4 bits and fewer, steps of 3 % gain 0.02 dB. The error of
    a floating format nearly repeats with every doubling of the scale, so its search covers a binade and more, above 1 too (the
    largest magnitude may fit a smaller value better), in steps of 3 %: 0.5 dB for e2m1 and 1 dB for e3m2 in blocks of 16.
    """
    if isinstance(fmt.scale, Exponent):
        return [2.0, 0.5] if fmt.bits > 4 else [2.0, 0.5, 0.25] if fmt.bits > 2 else [2.0, 0.5, 0.25, 0.125]
    if isinstance(fmt.element, Float):
        highest, lowest, ratio = 1.75, 0.25 if fmt.bits <= 4 else 0.4, 0.97
    elif fmt.bits >= 5:
        highest, lowest, ratio = 1.1, 0.5 if fmt.bits >= 7 else 0.3, 0.97
    else:
        highest, lowest, ratio = 1.5 if fmt.element.eps < 1 else 1.24, 0.2 if fmt.bits >= 3 else 0.06, 0.93
    return [highest * ratio**k for k in range(1 + int(log(lowest / highest) / log(ratio)))]


def mse_parameters(
    matrix: Tensor, fmt: TensorFormat, low: Tensor, high: Tensor, factor: Tensor | None, importance: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """(scale, zero) of least sum(importance * (x - dequantized)^2) for each block, found by search.

    Candidates are `shrink_factors` times the absmax scale (with zero points: times the range), as stored; then, twice, the scale
    that is optimal for the codes of the best so far, <x, q> / <q, q>. A candidate is taken only where it lowers the error.
    Formats of up to 5 bits that are not symmetric (two's complement, nf4) also try negative scales, which mirror the grid: on Gaussian,
    Laplace and Student-t blocks of 128 worth 0.4-0.6 dB for int2 to int4, 0.25 dB for int5, 0.2 dB for nf4; beyond 5 bits below
    0.1 dB, so it is left out.
    """
    rows, cols = matrix.shape
    weights = _weights(importance, rows, cols, fmt)
    best_scale, best_zero = absmax_parameters(low, high, fmt, factor)
    best_scale = best_scale.clone()
    best_zero = None if best_zero is None else best_zero.clone()
    tall = fmt.block[0]
    for band in blocks.bands(rows, cols, tall):
        first = band[0][0] // tall if tall else 0
        part = slice(first, first + (-(-band[-1][1] // tall) - first if tall else 1))
        search = _Search(matrix, weights, fmt, factor, band)
        scale, zero = best_scale[part], None if best_zero is None else best_zero[part]
        error = search.error(scale, zero)
        for shrink in shrink_factors(fmt):
            new_scale, new_zero = _parameters(low[part], high[part], fmt, factor, shrink)
            for signed in (new_scale, -new_scale) if _mirrored(fmt) else (new_scale,):
                scale, zero, error = _better(search, scale, zero, error, signed, new_zero)
        for _ in range(0 if isinstance(fmt.scale, Exponent) else 2):
            scale, zero, error = _better(search, scale, zero, error, search.closed_form(scale, zero), zero)
        best_scale[part] = scale
        if best_zero is not None and zero is not None:
            best_zero[part] = zero
    return best_scale, best_zero


def _mirrored(fmt: TensorFormat) -> bool:
    """Is the negated scale another grid worth trying?"""
    element, scale = fmt.element, fmt.scale
    if fmt.zero is not None or element.bits > 5 or scale is None or scale.min >= 0 or element.min >= 0:
        return False
    grid = np.sort(element.values)
    return not np.array_equal(grid, -grid[::-1])


def _weights(importance: Tensor | None, rows: int, cols: int, fmt: TensorFormat) -> Tensor | None:
    """importance as [1 or rows, cols] float32; ones where padding must be masked because the element format has no zero."""
    if importance is None:
        element = fmt.element
        if fmt.zero is not None or isinstance(element, Int) or 0.0 in element.values:
            return None
        return torch.ones(1, cols)
    weights = importance.float()
    weights = weights[None] if weights.ndim == 1 else weights
    if weights.shape not in ((1, cols), (rows, cols)) or not bool((weights >= 0).all()):
        raise FormatError(
            f"importance must be non-negative [{cols}] or [{rows}, {cols}]; got the shape {list(importance.shape)}"
        )
    return weights


def _better(
    search: _Search, scale: Tensor, zero: Tensor | None, error: Tensor, new_scale: Tensor, new_zero: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    new_error = search.error(new_scale, new_zero)
    wins = new_error < error
    if zero is not None and new_zero is not None:
        zero = torch.where(wins, new_zero, zero)
    return torch.where(wins, new_scale, scale), zero, torch.where(wins, new_error, error)


class _Search:
    """The blocks of one band, with the squared error of given parameters. A band of one chunk is read once, others every time."""

    def __init__(
        self,
        matrix: Tensor,
        weights: Tensor | None,
        fmt: TensorFormat,
        factor: Tensor | None,
        band: list[tuple[int, int]],
    ) -> None:
        self.matrix, self.weights, self.fmt, self.factor, self.band = matrix, weights, fmt, factor, band
        self.kept = list(self._read()) if len(band) == 1 else None

    def _read(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for a, b in self.band:
            weight = self.weights
            if weight is not None:
                weight = (weight if weight.shape[0] == 1 else weight[a:b]).to(self.matrix.device)
                weight = blocks.blocked(weight.expand(b - a, -1), self.fmt.block)
            yield blocks.blocked(self.matrix[a:b].float(), self.fmt.block), weight

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return iter(self.kept) if self.kept is not None else self._read()

    def _quantized(self, value: Tensor, scale: Tensor, zero: Tensor | None) -> tuple[Tensor, Tensor]:
        """(decode(code) - zero, the step it is multiplied by)."""
        step = (scale if self.factor is None else scale * self.factor)[:, None, :, None]
        units = value / torch.where(step == 0, 1.0, step)
        if zero is None:
            return self.fmt.element.round(units), step
        offset = zero[:, None, :, None]
        return self.fmt.element.round(units + offset) - offset, step

    def error(self, scale: Tensor, zero: Tensor | None) -> Tensor:
        """Weighted squared error [row blocks, col blocks] of these float parameters."""
        total = torch.zeros_like(scale)
        for value, weight in self._chunks():
            units, step = self._quantized(value, scale, zero)
            wrong = (value - units * step).square_()
            total += (wrong if weight is None else wrong * weight).sum((1, 3))
        return total

    def closed_form(self, scale: Tensor, zero: Tensor | None) -> Tensor:
        """The scale of least error for the codes that `scale` gives, as its format stores it; `scale` where it is undefined."""
        assert self.fmt.scale is not None, "callers have refused unscaled formats"
        xq, qq = torch.zeros_like(scale), torch.zeros_like(scale)
        for value, weight in self._chunks():
            units, _ = self._quantized(value, scale, zero)
            weighted = units if weight is None else units * weight
            xq += (value * weighted).sum((1, 3))
            qq += (units * weighted).sum((1, 3))
        found = xq / torch.where(qq == 0, 1.0, qq)
        found = found if self.factor is None else found / self.factor
        usable = (qq > 0) & (found > 0 if self.fmt.scale.min >= 0 else found != 0)
        found = torch.where(usable, found, scale)
        return load_scale(store_scale(found, self.fmt.scale), self.fmt.scale)
