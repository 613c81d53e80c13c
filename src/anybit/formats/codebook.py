"""Codebooks: any short list of real numbers. A code is the index in ascending order of value.

A codebook of one's own is made by `codebook(values)`; its name lists the values, `levels(-1,-0.25,0,1)`, so that `formats.get` knows it and
it may be the element of a `TensorFormat`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats.format import Format
from anybit.formats.ladder import Ladder
from anybit.formats.rounding import Key


@dataclass(frozen=True)
class Codebook(Format):
    """The values `levels`, ascending, 2 to 256 of them, each exact in float32 arithmetic or rounded to it on decoding.

    Rounding compares with the float64 midpoints of neighbours; nearest_even sends a tie to the even code.
    """

    label: str
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        levels = self.levels
        if not 2 <= len(levels) <= 256:
            raise FormatError(f"a codebook has 2 to 256 values; {self.label!r} has {len(levels)}")
        if not np.all(np.isfinite(levels)) or not np.all(np.diff(levels) > 0):
            raise FormatError(f"the values of the codebook {self.label!r} must be finite and ascending")

    @property
    def name(self) -> str:
        return self.label

    @property
    def bits(self) -> int:
        return (len(self.levels) - 1).bit_length()

    @property
    def max(self) -> float:
        return self.levels[-1]

    @property
    def min(self) -> float:
        return self.levels[0]

    @property
    def min_positive(self) -> float:
        return next((v for v in self.levels if v > 0), 0.0)

    @property
    def eps(self) -> float:
        return float(np.max(np.diff(self.levels)))

    def _make_table(self) -> NDArray[np.float64]:
        return np.array(self.levels, np.float64)

    @cached_property
    def _ladder(self) -> Ladder:
        return Ladder(np.array(self.levels, np.float64))

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return self._decode(xp, self._ladder.index(xp, x, mode, key), x.dtype)

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return self._ladder.index(xp, x, mode, key)

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        if len(self.levels) < 2**self.bits and bool((codes >= len(self.levels)).any()):
            raise FormatError(f"{self.name} has codes 0 to {len(self.levels) - 1}; got {int(codes.max())}")
        return super()._decode(xp, codes, dtype)


def codebook(values: Iterable[float]) -> Codebook:
    """The codebook of these values in any order, named by them. FormatError where one is not finite or comes twice."""
    levels = tuple(sorted(float(v) + 0.0 for v in values))
    return Codebook(levels_name(levels), levels)


def levels_name(levels: tuple[float, ...]) -> str:
    """`levels(…)` with the shortest decimals that read back to the same float64; no `+`, which a spec string gives another meaning."""
    return f"levels({','.join(repr(v).removesuffix('.0').replace('e+', 'e') for v in levels)})"
