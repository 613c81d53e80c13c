"""The complex alphabet {1, i, -1, -i}, 2 bits a complex number (Wang et al., "iFairy", arXiv 2508.05571).

code c stands for i^c: bit 0 says which axis, bit 1 the sign. A number goes to the axis it is nearest to; on the diagonals to the
next root counter-clockwise (angles [-45°, 45°) are 1, [45°, 135°) are i, and so on), zero to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.format import Format
from anybit.formats.overflow import check_overflow
from anybit.formats.rounding import Key, check_mode

_ROOTS = np.array([1, 1j, -1, -1j])


@dataclass(frozen=True)
class FourthRoots(Format):
    """`i2c`. Takes complex arrays (real ones count as having no imaginary part); `decode` gives complex64 for float32 (the default) and
    complex128 for float64.

    Only mode "nearest_even" exists, with the ties said above. Magnitude means nothing here: it is the business of scales.
    """

    @property
    def name(self) -> str:
        return "i2c"

    @property
    def bits(self) -> int:
        return 2

    @property
    def is_complex(self) -> bool:
        return True

    @property
    def max(self) -> float:
        """The largest real and imaginary part."""
        return 1.0

    @property
    def min(self) -> float:
        """The smallest real and imaginary part."""
        return -1.0

    @property
    def min_positive(self) -> float:
        return 1.0

    @property
    def eps(self) -> float:
        return 1.0

    def _make_table(self) -> NDArray[Any]:
        return _ROOTS.copy()

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        a, b = x.real, x.imag
        # Sectors of 90°, closed at their clockwise end.
        one = (a > 0) & (b >= -a) & (b < a)
        up = (b > 0) & (a > -b) & (a <= b)
        left = (a < 0) & (b <= -a) & (b > a)
        zero = (a == 0) & (b == 0)
        return xp.where(one | zero, 0, xp.where(up, 1, xp.where(left, 2, 3)))

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        codes = self._encode(xp, x, mode, key)
        roots = (
            xp.from_numpy(_ROOTS).to(device=x.device, dtype=x.dtype) if arrays.is_torch(x) else _ROOTS.astype(x.dtype)
        )
        return roots[codes]

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        known = (lambda t: t) if arrays.is_torch(codes) else np.dtype
        pairs = {known(xp.float32): known(xp.complex64), known(xp.float64): known(xp.complex128)}
        dtype = pairs.get(known(dtype), known(dtype))
        if not (dtype.is_complex if arrays.is_torch(codes) else dtype.kind == "c"):
            raise FormatError(f"{self.name} decodes to complex numbers; got {dtype}")
        return super()._decode(xp, codes, dtype)

    def _prepare(self, x: Any, mode: str, key: Key | None, overflow: str) -> tuple[Any, Any]:
        check_mode(mode, key)
        check_overflow(self, overflow)
        if mode != "nearest_even":
            raise FormatError(f"{self.name} rounds to the nearest root only; got mode {mode!r}")
        xp = arrays.namespace(x)
        if bool(xp.isnan(x).any()):
            raise FormatError(f"the input holds NaN, which {self.name} cannot represent")
        if arrays.is_torch(x):
            return xp, x if x.is_complex() else x.to(xp.complex128 if x.dtype == xp.float64 else xp.complex64)
        x = np.asarray(x)
        return xp, x if x.dtype.kind == "c" else x.astype(np.complex64 if x.dtype == np.float32 else np.complex128)

    def _rounded(self, xp: Any, x: Any, mode: str, key: Key | None, overflow: str) -> Any:
        return self._round(xp, x, mode, key)
