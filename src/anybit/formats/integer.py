"""Integers of 1 to 8 and of 16 bits: two's complement, unsigned, and narrow (symmetric).

int4   codes 0 … 7 are 0 … 7, codes 8 … 15 are -8 … -1
int4n  the same without -8;  uint4  0 … 15;  int1  {-1, 0}
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

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16)


@dataclass(frozen=True)
class Int(Format):
    """`width` bits; signed is two's complement; narrow leaves the lowest signed value out, so that max == -min."""

    width: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        if self.width not in WIDTHS:
            raise FormatError(f"integers have 1 to 8 or 16 bits; got {self.width}")
        if self.narrow and (not self.signed or self.width < 2):
            raise FormatError(f"only signed integers of 2 and more bits can be narrow; got {self.name}")

    @property
    def name(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.width}{'n' if self.narrow else ''}"

    @property
    def bits(self) -> int:
        return self.width

    @property
    def max(self) -> float:
        return float(2 ** (self.width - self.signed) - 1)

    @property
    def min(self) -> float:
        return float(self.narrow - 2 ** (self.width - 1)) if self.signed else 0.0

    @property
    def min_positive(self) -> float:
        return 1.0 if self.max >= 1 else 0.0

    @property
    def eps(self) -> float:
        return 1.0

    @property
    def wraps(self) -> bool:
        return not self.narrow

    def _wrap(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return wrapped(xp, x, self.width, self.signed, 0, mode, key)

    def _make_table(self) -> NDArray[np.float64]:
        codes = np.arange(2**self.width, dtype=np.float64)
        if self.signed:
            codes[2 ** (self.width - 1) :] -= 2**self.width
        # The code that narrow leaves out still decodes as two's complement would; it is not among `values`.
        return codes[codes >= self.min]

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        return to_integer(xp.clip(x, self.min, self.max), mode, key) + 0.0  # there is no -0

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        rounded = self._round(xp, x, mode, key)
        if self.width == 16:
            return arrays.cast(rounded, "int32") & 0xFFFF
        if not self.signed:
            return arrays.cast(rounded, "uint8")
        codes = arrays.cast(rounded, "int8").view(xp.uint8)
        return codes if self.width == 8 else codes & (2**self.width - 1)

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        if self.signed:
            sign = 1 << (self.width - 1)
            codes = (arrays.cast(codes, "int32" if self.width == 16 else "int16") ^ sign) - sign
        return codes.to(dtype) if arrays.is_torch(codes) else np.asarray(codes).astype(dtype)
