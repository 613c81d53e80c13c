"""What becomes of numbers beyond the range of a format.

saturate  the nearest finite value, infinities included (the default everywhere)
ieee      as IEEE 754-2019, sections 4.3 and 7.4: round as if the exponent had no upper bound; what is then beyond the largest finite value
          becomes infinity, except that toward_zero, odd, and up and down on their far side, stop at the largest finite value.
          Infinities stay. Formats without infinity give NaN (OCP OFP8 rev. 1.0, section 5.2.1: E4M3 without saturation)
infinity  infinity in every mode as soon as the rounded number is beyond the largest finite value
nan       NaN there
wrap      modulo 2^bits (integers and fixed point): WRAP of HLS, the conversion of C to unsigned types

"Rounded beyond" is decided by the mode between the largest value and the one that would follow it: of e4m3fn, 464 is the tie
between 448 (the even one) and 480.
Below the range of unsigned formats no infinity exists: `ieee` and `infinity` give NaN there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.rounding import Key, to_integer

if TYPE_CHECKING:
    from anybit.formats.format import Format

Overflow = Literal["saturate", "ieee", "infinity", "nan", "wrap"]
OVERFLOWS: tuple[str, ...] = get_args(Overflow)

_STOPS_ABOVE = ("toward_zero", "odd", "down")
_STOPS_BELOW = ("toward_zero", "odd", "up")


def check_overflow(fmt: Format, overflow: str) -> None:
    """FormatError where the word is unknown, or means something that the format cannot represent."""
    if overflow not in OVERFLOWS:
        raise FormatError(f"unknown overflow mode {overflow!r}; known: {', '.join(OVERFLOWS)}")
    missing = {
        "infinity": not fmt.has_inf and "infinity",
        "nan": not fmt.has_nan and "NaN",
        "ieee": not (fmt.has_inf or fmt.has_nan) and "infinity nor NaN",
        "wrap": not fmt.wraps and "range that wraps around",
    }.get(overflow)
    if missing:
        raise FormatError(f"overflow {overflow!r} is not possible: {fmt.name} has no {missing}; use 'saturate'")


def beyond(fmt: Format, xp: Any, x: Any, mode: str, key: Key | None, overflow: str) -> tuple[Any, Any]:
    """(above, below): where x (float32 or float64) is rounded beyond the largest and below the smallest value, as booleans."""
    low_step, high_step = fmt.steps_beyond
    low_parity, high_parity = fmt.end_parities
    # The position between the last value and the one after it, in units of their distance, clipped to 1.
    over = xp.clip((xp.clip(x, fmt.max, None) - fmt.max) / high_step, 0, 1) + high_parity
    under = xp.clip((fmt.min - xp.clip(x, None, fmt.min)) / low_step, 0, 1) + low_parity
    above = to_integer(over, mode, key) > high_parity
    below = to_integer(-under, mode, key) < -low_parity
    if overflow == "ieee":
        above = (above & (mode not in _STOPS_ABOVE)) | (x == float("inf"))
        below = (below & (mode not in _STOPS_BELOW)) | (x == -float("inf"))
    return above, below


def replacements(fmt: Format, overflow: str) -> tuple[float, float]:
    """(value above the range, value below it) for `ieee`, `infinity` and `nan`."""
    if overflow == "nan" or not fmt.has_inf:
        return float("nan"), float("nan")
    return float("inf"), -float("inf") if fmt.min < 0 else float("nan")


def wrapped(xp: Any, x: Any, bits: int, signed: bool, fraction_bits: int, mode: str, key: Key | None) -> Any:
    """x rounded to multiples of 2^-fraction_bits and taken modulo 2^bits of them, float64.

    Every step is exact: quotients by powers of two, and differences of multiples of the last place of x.
    """
    if bool(xp.isinf(x).any()):
        raise FormatError("infinity cannot wrap around; use overflow 'saturate'")
    span = 2.0**bits
    with np.errstate(over="ignore"):
        units = to_integer(arrays.cast(x, "float64") * 2.0**fraction_bits, mode, key)
    units = units - xp.floor(units / span) * span
    if signed:
        units = xp.where(units >= span / 2, units - span, units)
    return units * 2.0**-fraction_bits
