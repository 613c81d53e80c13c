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
from anybit.formats.rounding import Key, Mode, check_mode


class Format(ABC):
    """A finite set of real numbers with a code for each; a frozen value (subclasses are frozen dataclasses).

    `round`, `encode` and `decode` take numpy arrays and torch tensors of any shape and give the same kind back. Arithmetic is in
    float64 where the input is float64 or integer, else in float32; both hold every value of every format exactly.
    Values beyond the range, infinities included, saturate to the nearest finite value. NaN becomes the format's NaN; where
    it has none, `round` and `encode` raise FormatError.
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

    def round(self, x: ArrayT, mode: Mode = "nearest_even", key: Key | None = None) -> ArrayT:
        """x moved onto the grid, in x's own floating type (float64 for integers). `key` is needed for mode "stochastic"."""
        check_mode(mode, key)
        if (fast := native.round(self, x, mode, key)) is not None:
            return cast(ArrayT, fast)
        xp, work = self._prepare(x, mode, key)
        return cast(ArrayT, arrays.restore(self._round(xp, work, mode, key), x))

    def encode(self, x: ArrayT, mode: Mode = "nearest_even", key: Key | None = None) -> ArrayT:
        """Codes of x rounded: uint8 up to 8 bits; beyond, uint16/uint32 in numpy and int32/int64 in torch (never negative).

        Integers: two's complement in the low `bits`. Floating: sign, exponent, mantissa. Codebooks: index in ascending order.
        """
        check_mode(mode, key)
        if (fast := native.encode(self, x, mode, key)) is not None:
            return cast(ArrayT, fast)
        xp, work = self._prepare(x, mode, key)
        return cast(ArrayT, arrays.code_array(self._encode(xp, work, mode, key), self.bits))

    def decode(self, codes: ArrayT, dtype: Any = None) -> ArrayT:
        """Values of codes (any integer type) in `dtype`, a numpy or torch floating type to match `codes`; float32 where None."""
        xp = arrays.namespace(codes)
        dtype = xp.float32 if dtype is None else dtype
        if (fast := native.decode(self, codes, dtype)) is not None:
            return cast(ArrayT, fast)
        return cast(ArrayT, self._decode(xp, codes, dtype))

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        if arrays.is_torch(codes):
            table = xp.from_numpy(self._table).to(device=codes.device, dtype=dtype)
            return table.index_select(0, codes.reshape(-1).to(xp.int32)).reshape(codes.shape)
        return self._table.astype(dtype)[codes]

    def _prepare(self, x: Any, mode: str, key: Key | None) -> tuple[Any, Any]:
        check_mode(mode, key)
        xp = arrays.namespace(x)
        work = arrays.working(x)
        if not self.has_nan and bool(xp.isnan(work).any()):
            raise FormatError(f"the input holds NaN, which {self.name} cannot represent")
        return xp, work

    def __str__(self) -> str:
        return self.name
