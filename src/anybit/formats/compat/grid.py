"""Binary floating-point grids given as chop does: t significand bits (the hidden one included) and the largest exponent emax.

Any t up to 53 and emax up to 1023, so also grids that no `Format` stores in codes: fp64's own, or fp16's precision
with an unlimited exponent.
Numbers are rounded once, in float64, and given back in the caller's type. Rounding and overflow are those of `formats.rounding` and of
`formats.overflow` "ieee".
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.rounding import MODES, Key, StochasticKey, as_key, to_integer, uniform

AnyArray = TypeVar("AnyArray")

_TINIEST = -1022
_FLIPS = 0x5EED_F11F_0BAD_B175
"""Set apart from rounding: flips draw from the stream of the seed combined with this number."""


@dataclass(frozen=True)
class BinaryGrid:
    """The values ± i * 2^(e - t + 1) with i < 2^t and 1 - emax <= e <= emax.

    subnormal: without it nothing lies between 0 and 2^(1 - emax); nearest rounds there to the nearer of both, at the tie away from 0.
    explim: without it the exponent has the limits of float64.
    """

    t: int
    emax: int
    subnormal: bool = True
    explim: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.t <= 53 or not 1 <= self.emax <= 1023:
            raise FormatError(f"a binary grid has t 1 to 53 and emax 1 to 1023; got t = {self.t}, emax = {self.emax}")

    @property
    def u(self) -> float:
        """Unit roundoff 2^-t."""
        return 2.0**-self.t

    @property
    def xmin(self) -> float:
        """The smallest positive normal value."""
        return 2.0 ** (1 - self.emax)

    @property
    def xmins(self) -> float:
        """The smallest positive value with subnormal ones."""
        return 2.0 ** max(2 - self.emax - self.t, -1074)

    @property
    def xmax(self) -> float:
        """The largest finite value."""
        return 2.0**self.emax * (2 - 2.0 ** (1 - self.t))

    def round(self, x: AnyArray, mode: str = "nearest_even", key: Key | None = None, flip: float = 0.0) -> AnyArray:
        """x (a real floating numpy, torch or JAX array, or a number) on the grid; flip: the probability that one random bit of a
        significand's t - 1 trailing ones is inverted afterwards (a soft error), drawn from `key`.

        FormatError for integers and complex numbers, which chop refuses too; a UserWarning where x has no more than t bits anyway.
        """
        if mode not in MODES:
            raise FormatError(f"unknown rounding mode {mode!r}; known: {', '.join(MODES)}")
        if not 0 <= flip <= 1:
            raise FormatError(f"the probability of a flip is 0 to 1; got {flip}")
        if arrays.is_jax(x):
            found: AnyArray = arrays.on_host(lambda a: self.round(a, mode, key, flip), x, None)
            return found
        array: Any = x if arrays.is_torch(x) else np.asarray(x)
        if array.dtype.is_complex if arrays.is_torch(array) else array.dtype.kind in "iubc":
            raise FormatError(f"chop rounds real floating numbers; got {array.dtype}")
        if arrays.is_torch(array) and not array.dtype.is_floating_point:
            raise FormatError(f"chop rounds real floating numbers; got {array.dtype}")
        work = arrays.working(array)
        mantissa, bias = arrays.float_layout(work)
        if self.t > mantissa + 1 or (self.t == mantissa + 1 and (self.emax >= bias or not self.explim)):
            warnings.warn(f"rounding to {self.t} bits leaves numbers of {work.dtype} as they are", stacklevel=2)
        result: AnyArray = arrays.restore(self._round(arrays.cast(work, "float64"), mode, key, flip), array)
        return result

    def _round(self, x: Any, mode: str, key: Key | None, flip: float) -> Any:
        xp = arrays.namespace(x)
        finite = xp.isfinite(x)
        y = xp.where(finite, x, 0.0)
        size = xp.abs(y)
        lowest = max(1 - self.emax, _TINIEST) if self.explim else _TINIEST
        spacing = xp.clip(arrays.power_below(y), 2.0**lowest, None) * 2.0 ** (1 - self.t)
        if self.explim and not self.subnormal:
            spacing = xp.where(size < self.xmin, self.xmin, spacing)
        scaled = y / spacing
        units = to_integer(scaled, mode, key)
        if self.explim and not self.subnormal and mode == "nearest_even":
            units = xp.where(size == self.xmin / 2, xp.sign(y), units)
        if flip:
            units = self._flipped(xp, units, key, flip)
        with np.errstate(over="ignore"):
            y = units * spacing
        if self.explim:
            y = self._limited(xp, y, mode)
        return xp.where(finite, y, x)

    def _limited(self, xp: Any, y: Any, mode: str) -> Any:
        """y, rounded as if the exponent had no limit, with overflow as the mode says."""
        stays = mode in ("toward_zero", "odd")
        above = self.xmax if stays or mode == "down" else float("inf")
        below = -self.xmax if stays or mode == "up" else -float("inf")
        return xp.where(y > self.xmax, above, xp.where(y < -self.xmax, below, y))

    def _flipped(self, xp: Any, units: Any, key: Key | None, flip: float) -> Any:
        if self.t < 2:
            raise FormatError("a significand of one bit has no trailing bit to flip")
        if key is None:
            raise FormatError("bit flips need a key (a 64-bit seed, or a pair (seed, offset))")
        given = as_key(key)
        first = StochasticKey(given.seed ^ _FLIPS, given.offset)
        second = StochasticKey(given.seed ^ _FLIPS ^ 1, given.offset)
        hit = uniform(units, first) < flip
        bit = xp.floor(uniform(units, second) * (self.t - 1))
        whole = arrays.cast(xp.abs(units), "int64")
        mask = arrays.cast(xp.exp2(bit), "int64")
        changed = arrays.cast(whole ^ mask, "float64")
        return xp.where(hit, xp.where(xp.signbit(units), -changed, changed), units)
