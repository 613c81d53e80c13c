"""Scales of blocks: how they are stored, and the absmax rule. The search for the least squared error is `tensors.scale_search`.

absmax.  Largest magnitude of the block / largest value of the element format, rounded to the scale's format. So two's complement
of b bits divides by 2^(b-1) - 1, and both +absmax and -absmax are on the grid. With 1 and 2 bits, {-1, 0} and {-2, -1, 0, 1}, that would
leave one sign or half the grid unused: there the signed extreme of the block gets the lowest value, scale = extreme / -2^(b-1), and
the scale may be negative (where its format has signs). Measured on Gaussian, Laplace and Student-t blocks of 128 this is
worth 3 to 5 dB at 2 bits. Unsigned elements use the largest positive value.
e8m0 scales follow OCP Microscaling v1.0, section 6.3: 2^(floor(log2 absmax) - floor(log2 element.max)). With `power` it is
absmax / element.max that is rounded to a power of two: "floor", "ceil" (nothing is clipped), "nearest" (by value, from 1.5 on up) or
"four_thirds" (from 4/3 on up: with the scale of `gaussian_scale` the one of the four that gives the published errors of Quartet,
arXiv 2505.14669, whose own code takes the floor).
Posits are densest near 1 and their largest value is far off: the largest magnitude becomes 2^(2^es), where one more regime bit begins.
On Gaussian and Laplace blocks of 128 this is within 1 dB of the best power of two, and 13 to 25 dB above the largest value (8 bits).
With zero points the block's range, widened to hold 0, is spread over all codes: scale = (high - low) / (max - min),
zero = round(min - low / scale).

Tensor scale (`+t`): absmax of the tensor / (element.max * t), with t = min(448, largest scale): the largest block scale becomes t.
For e4m3fn this is the NVFP4 rule, amax / (6 * 448).

Storage. A scale too large for its format becomes the largest value, and the elements saturate; a nonzero one too small becomes the
smallest positive value, so that no block is divided by zero. Blocks of zeros have scale 0 (e8m0: 2^-127).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Exponent, Format, Int, Posit, TensorFormat
from anybit.tensors import blocks
from anybit.tensors.qtensor import scale_dtype

PowerRounding = Literal["floor", "nearest", "four_thirds", "ceil"]
POWER_ROUNDINGS: tuple[str, ...] = get_args(PowerRounding)

_UP_FROM = {"floor": 2.0, "nearest": 1.5, "four_thirds": 4 / 3}
LARGEST_BLOCK_SCALE = 448.0
_TINY = torch.finfo(torch.float32).tiny


def power_of_two(scale: Tensor, rounding: PowerRounding) -> Tensor:
    """Non-negative numbers -> a power of two beside each, float32; 0 stays 0. FormatError for an unknown rounding."""
    if rounding not in POWER_ROUNDINGS:
        raise FormatError(f"unknown rounding to powers of two {rounding!r}; known: {', '.join(POWER_ROUNDINGS)}")
    # frexp is exact where log2 would round: scale = fraction * 2^exponent with the fraction in [0.5, 1).
    fraction, exponent = torch.frexp(scale.double())
    up = fraction > 0.5 if rounding == "ceil" else 2 * fraction >= _UP_FROM[rounding]
    power = torch.exp2((exponent - 1 + up.to(exponent.dtype)).double().clamp(-149, 127))
    return torch.where(scale > 0, power, 0.0).float()


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


def tensor_factor(low: Tensor, high: Tensor, fmt: TensorFormat, headroom: float = 1.0) -> Tensor | None:
    """The tensor scale, a float32 scalar; None without `+t`. 1 for a tensor of zeros.

    headroom: how much above the one of the absmax rule the largest block scale may be.
    """
    if not fmt.tensor_scale or fmt.scale is None:
        return None
    absmax = torch.maximum(-low, high).amax() if low.numel() else low.new_zeros(())
    largest = min(fmt.scale.max, LARGEST_BLOCK_SCALE)
    factor = absmax * headroom / (span_of(fmt) * largest)
    return torch.where(absmax > 0, factor.clamp(min=_TINY), 1.0)


def range_parameters(
    low: Tensor,
    high: Tensor,
    fmt: TensorFormat,
    factor: Tensor | None,
    shrink: float | Tensor = 1.0,
    power: PowerRounding | None = None,
) -> tuple[Tensor, Tensor | None]:
    """(scale, zero) of the absmax rule for the range of each block times `shrink` (a number or one for each block).

    `factor` is the tensor scale. The results are values of their formats. A negative shrink gives a negative scale.
    """
    element, scale_format = fmt.element, fmt.scale
    assert scale_format is not None, "callers have refused unscaled formats"
    span = span_of(fmt)
    if fmt.zero is not None:
        reach = high - low
    elif element.max <= 0 and scale_format.min >= 0:
        reach = -low
    elif by_signed_extreme(fmt):
        reach, span = torch.where(-low >= high, -low, -high), -element.min
    elif element.min >= 0:
        reach = high
    else:
        reach = torch.maximum(-low, high)
    reach = reach * shrink + 0.0  # a block of zeros has scale +0, never -0
    if factor is not None:
        reach = reach / factor
    if isinstance(scale_format, Exponent) and power is not None:
        scale = power_of_two(reach / span, power)
    elif isinstance(scale_format, Exponent):
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


def span_of(fmt: TensorFormat) -> float:
    """What the range of a block is divided by."""
    element = fmt.element
    if isinstance(element, Posit):
        return min(element.max, 2.0 ** (1 << element.es))
    return element.max - element.min if fmt.zero is not None else element.max if element.max > 0 else -element.min


def by_signed_extreme(fmt: TensorFormat) -> bool:
    """Is the scale that of the signed extreme of the block (two's complement of 1 and 2 bits)?"""
    element, scale = fmt.element, fmt.scale
    return (
        isinstance(element, Int)
        and element.min < -element.max
        and element.bits <= 2
        and scale is not None
        and scale.min < 0
    )
