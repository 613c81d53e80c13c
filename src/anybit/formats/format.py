"""`Format`: what one number can be, a finite alphabet with rounding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import arrays, native
from anybit.formats.arrays import ArrayT
from anybit.formats.overflow import Overflow, beyond, check_overflow, replacements
from anybit.formats.rounding import Key, Mode, check_mode


class Format(ABC):
    """A finite set of real numbers with a code for each; a frozen value (subclasses are frozen dataclasses).

    `round`, `encode` and `decode` take numpy, torch and JAX arrays of any shape and give the same kind back, bit for bit the same values.
    Arithmetic is in float64 where the input is float64 or integer, else in float32; both hold every value of every format exactly.
    Values beyond the range, infinities included, saturate to the nearest finite value, unless `overflow` says otherwise
    (see `formats.overflow`). NaN becomes the format's NaN; where it has none, `round` and `encode` raise FormatError.
    `_round` and `_encode` are the readable reference and saturate.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name `formats.get` knows it by."""

    @property
    @abstractmethod
    def bits(self) -> int:
        """Storage bits of one code."""

    @property
    @abstractmethod
    def max(self) -> float:
        """The largest finite value."""

    @property
    @abstractmethod
    def min(self) -> float:
        """The smallest (most negative) finite value."""

    @property
    @abstractmethod
    def min_positive(self) -> float:
        """The smallest value above zero, subnormals included; 0 where there is none."""

    @property
    @abstractmethod
    def eps(self) -> float:
        """Spacing: of floating formats the relative one, 2^-mantissa_bits; of integers and codebooks the widest gap of neighbours."""

    @property
    def has_inf(self) -> bool:
        """Does a code mean infinity?"""
        return False

    @property
    def has_nan(self) -> bool:
        """Does a code mean NaN?"""
        return False

    @property
    def wraps(self) -> bool:
        """Are the codes an integer interval, so that overflow may wrap around?"""
        return False

    @property
    def is_complex(self) -> bool:
        """Are the values complex numbers?"""
        return False

    @property
    def steps_beyond(self) -> tuple[float, float]:
        """Distances from `min` down and from `max` up to the values that would follow if the grid went on."""
        return 1.0, 1.0

    @cached_property
    def end_parities(self) -> tuple[int, int]:
        """Last bits of the codes of `min` and `max`."""
        low, high = self.encode(np.array([self.min, self.max])).tolist()
        return low & 1, high & 1

    @property
    def nan_code(self) -> int:
        """The code that NaN is given. FormatError where there is none."""
        raise FormatError(f"{self.name} has no NaN")

    @property
    def inf_code(self) -> int:
        """The code of +infinity. FormatError where there is none."""
        raise FormatError(f"{self.name} has no infinity")

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """All finite values as float64 in code order, read-only (-0.0 has its own code in floating formats); up to 16 bits."""
        finite = self._table[np.isfinite(self._table)]
        finite.flags.writeable = False
        return finite

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        """decode of every code, infinities and NaN included."""
        if self.bits > 16:
            raise FormatError(f"{self.name} has 2^{self.bits} values; they are listed for formats of up to 16 bits")
        return self._make_table()

    @abstractmethod
    def _make_table(self) -> NDArray[np.float64]: ...

    @abstractmethod
    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        """Grid values of x (float32 or float64)."""

    @abstractmethod
    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        """Codes of x (float32 or float64), integers of any type that holds them; NaN in x only where `has_nan`."""

    def round(
        self, x: ArrayT, mode: Mode = "nearest_even", key: Key | None = None, overflow: Overflow = "saturate"
    ) -> ArrayT:
        """x moved onto the grid, in x's own floating type (float64 for integers). `key` is needed for the random modes."""
        if arrays.is_jax(x):
            wanted = arrays.complex_dtype(x.dtype) if self.is_complex else None
            return cast(ArrayT, arrays.on_host(lambda a: self.round(a, mode, key, overflow), x, wanted))
        check_mode(mode, key)
        check_overflow(self, overflow)
        if (fast := native.round(self, x, mode, key, overflow)) is not None:
            return cast(ArrayT, fast)
        xp, work = self._prepare(x, mode, key, overflow)
        return cast(ArrayT, arrays.restore(self._rounded(xp, work, mode, key, overflow), x))

    def encode(
        self, x: ArrayT, mode: Mode = "nearest_even", key: Key | None = None, overflow: Overflow = "saturate"
    ) -> ArrayT:
        """Codes of x rounded: uint8 up to 8 bits; beyond, uint16/uint32 in numpy and JAX and int32/int64 in torch (never negative).

        Integers and posits: two's complement in the low `bits`. Floating: sign, exponent, mantissa. Codebooks: index in ascending order.
        """
        if arrays.is_jax(x):
            return cast(
                ArrayT, arrays.on_host(lambda a: self.encode(a, mode, key, overflow), x, arrays.code_dtype(self.bits))
            )
        check_mode(mode, key)
        check_overflow(self, overflow)
        if (fast := native.encode(self, x, mode, key, overflow)) is not None:
            return cast(ArrayT, fast)
        xp, work = self._prepare(x, mode, key, overflow)
        return cast(ArrayT, arrays.code_array(self._encoded(xp, work, mode, key, overflow), self.bits))

    def _rounded(self, xp: Any, x: Any, mode: str, key: Key | None, overflow: str) -> Any:
        """`_round` with the overflow mode applied."""
        if overflow == "saturate":
            return self._round(xp, x, mode, key)
        if overflow == "wrap":
            return arrays.restore(self._wrap(xp, x, mode, key), x)
        rounded = self._round(xp, x, mode, key)
        for where, value in zip(self._beyond(xp, x, mode, key, overflow), replacements(self, overflow), strict=True):
            rounded = xp.where(where, value, rounded)
        return rounded

    def _encoded(self, xp: Any, x: Any, mode: str, key: Key | None, overflow: str) -> Any:
        """`_encode` with the overflow mode applied."""
        if overflow == "saturate":
            return self._encode(xp, x, mode, key)
        if overflow == "wrap":
            return self._encode(xp, self._wrap(xp, x, mode, key), "toward_zero", None)
        codes = self._encode(xp, x, mode, key)
        for where, value in zip(self._beyond(xp, x, mode, key, overflow), replacements(self, overflow), strict=True):
            sign = 1 << (self.bits - 1) if value < 0 else 0
            codes = xp.where(where, self.nan_code if value != value else self.inf_code | sign, codes)
        return codes

    def _beyond(self, xp: Any, x: Any, mode: str, key: Key | None, overflow: str) -> tuple[Any, Any]:
        return beyond(self, xp, x, mode, key, overflow)

    def _wrap(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        """x rounded and wrapped into the range, float64; only where `wraps`."""
        raise NotImplementedError

    def decode(self, codes: ArrayT, dtype: Any = None) -> ArrayT:
        """Values of codes (any integer type) in `dtype`, a numpy, JAX or torch floating type to match `codes`; float32 where None.

        FormatError for another type, for codes that are not integers, and for numbers that are no codes (not looked for on devices and
        under tracers).
        """
        if arrays.is_jax(codes):
            found = np.float32 if dtype is None else dtype
            if self.is_complex and np.dtype(found) in (np.float32, np.float64):
                found = arrays.complex_dtype(found)
            return cast(ArrayT, arrays.on_host(lambda a: self.decode(a, found), codes, found))
        xp = arrays.namespace(codes)
        dtype = xp.float32 if dtype is None else dtype
        if (fast := native.decode(self, codes, dtype)) is not None:
            return cast(ArrayT, fast)
        arrays.check_value_dtype(dtype, codes)
        arrays.check_codes(codes, self.bits, self.name)
        return cast(ArrayT, self._decode(xp, codes, dtype))

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        if arrays.is_torch(codes):
            table = xp.from_numpy(self._table).to(device=codes.device, dtype=dtype)
            return table.index_select(0, codes.reshape(-1).to(xp.int32)).reshape(codes.shape)
        return self._table.astype(dtype)[codes]

    def _prepare(self, x: Any, mode: str, key: Key | None, overflow: str) -> tuple[Any, Any]:
        check_mode(mode, key)
        check_overflow(self, overflow)
        xp = arrays.namespace(x)
        if overflow == "wrap":
            x = arrays.low_bits(x)
        work = arrays.working(x)
        if not self.has_nan and bool(xp.isnan(work).any()):
            raise FormatError(f"the input holds NaN, which {self.name} cannot represent")
        return xp, work

    def __str__(self) -> str:
        return self.name
