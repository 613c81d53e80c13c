"""Rounding to any ascending list of values by searching thresholds: what codebooks and posits stand on."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.formats import arrays
from anybit.formats.rounding import RANDOM_MODES, Key, goes_up

_NEAREST = ("nearest_even", "nearest_away", "nearest_zero", "nearest_up", "nearest_down")


class Ladder:
    """Ascending float64 values; a number between two of them goes to one by mode.

    middles: where the nearest modes part neighbours (the midpoints where None).  odd: which values have an odd code (every second
    one where None).
    """

    def __init__(
        self,
        levels: NDArray[np.float64],
        middles: NDArray[np.float64] | None = None,
        odd: NDArray[np.bool_] | None = None,
    ) -> None:
        self.levels = levels
        self.middles = (levels[:-1] + levels[1:]) / 2 if middles is None else middles
        self.odd = np.arange(len(levels)) % 2 == 1 if odd is None else odd

    def thresholds(self, mode: str) -> NDArray[np.float32]:
        """float32 t with: x belongs to value i exactly when t[i-1] < x <= t[i], for any mode that draws nothing."""
        if mode in _NEAREST:
            found: NDArray[np.float32] = self._thresholds[mode, "float32"]
            return found
        levels = self.levels.astype(np.float32)
        low, high = levels[:-1], levels[1:]
        # Any number above the lower value goes up, or only the upper value itself does.
        only_upper = np.nextafter(high, np.float32(-np.inf))
        if mode == "down":
            return only_upper
        if mode == "up":
            return low
        if mode == "odd":
            return np.where(self.odd[:-1], only_upper, low)
        assert mode == "toward_zero", f"{mode} has no thresholds"
        middle = np.where(low == -high, np.nextafter(np.float32(0), np.float32(-1)), only_upper)
        return np.where(abs(high) < abs(low), low, middle)

    @cached_property
    def _thresholds(self) -> dict[tuple[str, str], NDArray[Any]]:
        """(mode, dtype) -> thresholds t with: x belongs to value i exactly when t[i-1] < x <= t[i], ties included."""
        middle = self.middles
        tie_goes_up = {
            "nearest_even": self.odd[:-1],
            "nearest_away": middle > 0,
            "nearest_zero": middle <= 0,
            "nearest_up": middle == middle,
            "nearest_down": middle != middle,
        }
        found = {}
        for dtype in ("float32", "float64"):
            # The largest number of this type that is not above the midpoint; where a tie goes up, the one below the midpoint.
            near = middle.astype(dtype)
            below = np.nextafter(near, np.array(-np.inf, dtype))
            for mode, up in tie_goes_up.items():
                found[mode, dtype] = np.where((near > middle) | ((near == middle) & up), below, near)
        return found

    def index(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        """The index of the value that each x (float32 or float64, not NaN) is rounded to."""
        dtype = "float64" if x.dtype == xp.float64 else "float32"
        if mode in _NEAREST:
            thresholds = self._thresholds[mode, dtype]
            if arrays.is_torch(x) and len(thresholds) < 16:
                # Counting the thresholds below x in vector passes beats torch's binary search by far.
                index = xp.zeros(x.shape, dtype=xp.uint8, device=x.device)
                for threshold in thresholds.tolist():
                    index += x > threshold
                return index
            return _search(xp, x, thresholds, "left")
        levels = self.levels.astype(dtype)
        low = xp.clip(_search(xp, x, levels, "right") - 1, 0, len(levels) - 2)
        grid = _put(xp, x, levels)
        x = xp.clip(x, float(levels[0]), float(levels[-1]))
        below, above = grid[low], grid[low + 1]
        if mode == "down":
            up = x == above
        elif mode == "up":
            up = x > below
        elif mode == "odd":
            up = (x == above) | ((x > below) & ~_put(xp, x, self.odd)[low])
        elif mode == "toward_zero":
            # The neighbour of smaller magnitude; of two alike the one on x's side of zero.
            smaller = (abs(above) < abs(below)) | ((abs(above) == abs(below)) & (x >= 0))
            up = (x == above) | ((x > below) & smaller)
        else:
            assert mode in RANDOM_MODES, f"unknown mode {mode}"
            up = goes_up((x - below) / (above - below), mode, key)
        return low + up


def _put(xp: Any, like: Any, a: NDArray[Any]) -> Any:
    return xp.from_numpy(a).to(like.device) if arrays.is_torch(like) else a


def _search(xp: Any, x: Any, a: NDArray[Any], side: Any) -> Any:
    if arrays.is_torch(x):
        return xp.searchsorted(_put(xp, x, a), x.contiguous(), side=side, out_int32=True)
    return np.searchsorted(a, x, side=side)
