"""Fixed point: integers times a power of two, with every rounding mode and saturation or wrap-around.

`fixed4_4` has 4 integer bits, the sign among them, and 4 fraction bits: -8 … 7.9375 in steps of 1/16; `ufixed4_4` is 0 … 15.9375. These are
`ap_fixed<8, 4>` and `ap_ufixed<8, 4>` of HLS, whose default is mode "down" with overflow "wrap" (TRN, WRAP), and Q4.4 in the count that
includes the sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.format import Format
from anybit.formats.overflow import wrapped
from anybit.formats.rounding import Key, to_integer


@dataclass(frozen=True)
class FixedPoint(Format):
    """`integer_bits` (the sign included) and `fraction_bits`, each 0 to 24, 1 to 24 in all (float32 holds the values exactly).

    Codes are the integers value * 2^fraction_bits, two's complement where signed.
    """

    integer_bits: int
    fraction_bits: int
    signed: bool = True

    def __post_init__(self) -> None:
        if self.integer_bits < 0 or self.fraction_bits < 0 or not 1 <= self.bits <= 24:
            raise FormatError(
                f"fixed point has 0 or more integer and fraction bits, 1 to 24 in all; got {self.integer_bits} and {self.fraction_bits}"
            )

    @property
    def name(self) -> str:
        return f"{'' if self.signed else 'u'}fixed{self.integer_bits}_{self.fraction_bits}"

    @property
    def bits(self) -> int:
        return self.integer_bits + self.fraction_bits

    @property
    def max(self) -> float:
        return (2.0 ** (self.bits - self.signed) - 1) * self.eps

    @property
    def min(self) -> float:
        return -(2.0 ** (self.bits - 1)) * self.eps if self.signed else 0.0

    @property
    def min_positive(self) -> float:
        return self.eps if self.max > 0 else 0.0

    @property
    def eps(self) -> float:
        return 2.0**-self.fraction_bits

    @property
    def wraps(self) -> bool:
        return True

    def _wrap(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return wrapped(xp, x, self.bits, self.signed, self.fraction_bits, mode, key)

    def _make_table(self) -> NDArray[np.float64]:
        codes = np.arange(2**self.bits, dtype=np.float64)
        if self.signed:
            codes[2 ** (self.bits - 1) :] -= 2**self.bits
        return codes * self.eps

    def _units(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return to_integer(xp.clip(x, self.min, self.max) * 2.0**self.fraction_bits, mode, key)

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return self._units(xp, x, mode, key) * self.eps + 0.0  # there is no -0

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return arrays.cast(self._units(xp, x, mode, key), "int32") & ((1 << self.bits) - 1)

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        units = arrays.cast(codes, "int32")
        if self.signed:
            sign = 1 << (self.bits - 1)
            units = (units ^ sign) - sign
        values = arrays.cast(units, "float64") * self.eps
        return values.to(dtype) if arrays.is_torch(values) else np.asarray(values).astype(dtype)
