"""Codebooks: any short list of real numbers. A code is the index in ascending order of value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.format import Format
from anybit.formats.rounding import Key, uniform


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
    def _nearest(self) -> dict[tuple[str, str], NDArray[Any]]:
        """(mode, dtype) -> thresholds t with: x belongs to code i exactly when t[i-1] < x <= t[i], ties included."""
        levels = np.array(self.levels, np.float64)
        middle = (levels[:-1] + levels[1:]) / 2
        index = np.arange(len(middle))
        found = {}
        for mode, tie_goes_up in (("nearest_even", index % 2 == 1), ("nearest_away", middle > 0)):
            for dtype in ("float32", "float64"):
                # The largest number of this type that is not above the midpoint; where a tie goes up, the one below the midpoint.
                near = middle.astype(dtype)
                below = np.nextafter(near, np.array(-np.inf, dtype))
                found[mode, dtype] = np.where((near > middle) | ((near == middle) & tie_goes_up), below, near)
        return found

    def _index(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        dtype = "float64" if x.dtype == xp.float64 else "float32"

        def put(a: NDArray[Any]) -> Any:
            return xp.from_numpy(a).to(x.device) if arrays.is_torch(x) else a

        def search(a: NDArray[Any], side: str) -> Any:
            if arrays.is_torch(x):
                return xp.searchsorted(put(a), x.contiguous(), side=side, out_int32=True)
            return np.searchsorted(a, x, side=side)  # type: ignore[call-overload]

        if (mode, dtype) in self._nearest:
            thresholds = self._nearest[mode, dtype]
            if arrays.is_torch(x) and len(thresholds) < 16:
                # Counting the thresholds below x in vector passes beats torch's binary search by far.
                index = xp.zeros(x.shape, dtype=xp.uint8, device=x.device)
                for threshold in thresholds.tolist():
                    index += x > threshold
                return index
            return search(thresholds, "left")
        levels = self._table.astype(dtype)
        low = xp.clip(search(levels, "right") - 1, 0, len(levels) - 2)
        grid = put(levels)
        x = xp.clip(x, float(levels[0]), float(levels[-1]))
        below, above = grid[low], grid[low + 1]
        if mode == "down":
            up = x == above
        elif mode == "up":
            up = x > below
        elif mode == "toward_zero":
            # The neighbour of smaller magnitude; of two alike the one on x's side of zero.
            smaller = (abs(above) < abs(below)) | ((abs(above) == abs(below)) & (x >= 0))
            up = (x == above) | ((x > below) & smaller)
        else:
            assert key is not None, "stochastic rounding has a key"
            up = uniform(x, key) < (x - below) / (above - below)
        return low + up

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return self._decode(xp, self._index(xp, x, mode, key), x.dtype)

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return self._index(xp, x, mode, key)

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        if len(self.levels) < 2**self.bits and bool((codes >= len(self.levels)).any()):
            raise FormatError(f"{self.name} has codes 0 to {len(self.levels) - 1}; got {int(codes.max())}")
        return super()._decode(xp, codes, dtype)
