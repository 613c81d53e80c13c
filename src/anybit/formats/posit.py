"""Posits: tapered precision, most digits near 1.

Posit Standard 2022; Gustafson and Yonemoto, "Beating floating point at its own game", 2017.

A code read as a two's complement integer orders the values. 0…0 is zero, 10…0 is NaR (not a real). Else, with the sign taken off by
negating the code: a regime of r equal bits ended by the other one (k = r - 1 for ones, -r for zeros), up to `es` exponent bits e (missing
ones are 0), the rest the fraction f:   value = 2^(k * 2^es + e) * (1 + f).

`posit8_0` has 8 bits and es = 0, as XR-NPE and softposit's posit8; the standard of 2022 fixes es = 2 and `posit8` means that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.format import Format
from anybit.formats.ladder import Ladder
from anybit.formats.rounding import Key


@dataclass(frozen=True)
class Posit(Format):
    """`width` bits (2 to 16), `es` exponent bits (0 to 4, as far as the values fit float32).

    The nearest modes round the bit string, as the standard's section 4.1 says: two neighbours part at the posit of one bit more that lies
    between them, which far from 1 is their geometric and not their arithmetic mean; numbers other than zero never become zero or NaR and
    numbers beyond the largest posit become it. The other modes, which the standard does not know, decide by value, so stochastic
    rounding has no bias; they may give zero. Infinities saturate like any number; overflow "nan" or "ieee" makes them NaR,
    as the standard's conversions do (finite numbers never overflow).
    """

    width: int
    es: int

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 16 or not 0 <= self.es <= 4:
            raise FormatError(f"posits have 2 to 16 bits and 0 to 4 exponent bits; got {self.name}")
        if (self.width - 2) << self.es > 126:
            raise FormatError(
                f"the values of posits must fit float32; {self.name} reaches 2^{(self.width - 2) << self.es}"
            )

    @property
    def name(self) -> str:
        return f"posit{self.width}_{self.es}"

    @property
    def bits(self) -> int:
        return self.width

    @property
    def max(self) -> float:
        return 2.0 ** ((self.width - 2) << self.es)

    @property
    def min(self) -> float:
        return -self.max

    @property
    def min_positive(self) -> float:
        return 1 / self.max

    @property
    def eps(self) -> float:
        """The relative spacing at 1."""
        one = 1 << (self.width - 2)
        return float(self._table[one + 1] - 1.0) if self.width > 2 else 1.0

    @property
    def has_nan(self) -> bool:
        return True

    @property
    def nan_code(self) -> int:
        return 1 << (self.width - 1)

    def _make_table(self) -> NDArray[np.float64]:
        positive = positive_values(self.width, self.es)
        return np.concatenate([[0.0], positive, [np.nan], -positive[::-1]])

    @cached_property
    def _ladder(self) -> Ladder:
        positive = positive_values(self.width, self.es)
        levels = np.concatenate([-positive[::-1], [0.0], positive])
        # Posits of one bit more, code 2c + 1 being the one between codes c and c + 1. Any positive number is nearer to minpos than to 0.
        between = np.concatenate([[0.0], positive_values(self.width + 1, self.es)[2:-1:2]])
        middles = np.concatenate([-between[::-1], between])
        # Beside 0 the "tie" is 0 itself, and must stay: up from the negative side, down from the positive one. Its code is even.
        return Ladder(levels, middles, np.abs(np.arange(len(levels)) - len(positive)) % 2 == 1)

    def _index(self, xp: Any, x: Any, mode: str, key: Key | None) -> tuple[Any, Any]:
        nan = xp.isnan(x)
        x = xp.where(nan, 0.0, x)
        index = self._ladder.index(xp, x, mode, key)
        if mode.startswith("nearest"):
            index = xp.where(x == 0, (1 << (self.width - 1)) - 1, index)
        return index, nan

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        index, nan = self._index(xp, x, mode, key)
        levels = self._ladder.levels
        if arrays.is_torch(x):
            values = xp.from_numpy(levels).to(device=x.device, dtype=x.dtype)[arrays.cast(index, "int64")]
        else:
            values = levels.astype(x.dtype)[index]
        return xp.where(nan, float("nan"), values)

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        index, nan = self._index(xp, x, mode, key)
        codes = (arrays.cast(index, "int32") - ((1 << (self.width - 1)) - 1)) & ((1 << self.width) - 1)
        return xp.where(nan, self.nan_code, codes)

    def _beyond(self, xp: Any, x: Any, mode: str, key: Key | None, overflow: str) -> tuple[Any, Any]:
        return x == float("inf"), x == -float("inf")


def positive_values(width: int, es: int) -> NDArray[np.float64]:
    """The values of the codes 1 … 2^(width-1) - 1 of a posit, ascending, exact in float64 for the widths used here (up to 17)."""
    body = width - 1
    code = np.arange(1, 1 << body, dtype=np.int64)
    leading = (code >> (body - 1)) & 1
    # The run length: count how long the bits stay equal to the leading one.
    run = np.zeros_like(code)
    same = np.ones(len(code), bool)
    for position in range(body - 1, -1, -1):
        same &= ((code >> position) & 1) == leading
        run += same
    k = np.where(leading == 1, run - 1, -run)
    rest_bits = np.maximum(body - run - 1, 0)
    rest = code & ((1 << rest_bits) - 1)
    # Exponent and fraction share what the regime leaves; exponent bits cut off count as 0.
    fraction_bits = np.maximum(rest_bits - es, 0)
    exponent = (rest >> fraction_bits) << np.maximum(es - rest_bits, 0)
    fraction = (rest & ((1 << fraction_bits) - 1)) / np.exp2(fraction_bits)
    values: NDArray[np.float64] = np.ldexp(1 + fraction, (k << es) + exponent)
    return values
