"""Floating-point formats: sign, exponent, mantissa, with the special values of IEEE 754, of the OCP documents or of P3109.

    code = sign << (e+m) | exponent field << m | mantissa field;   bias = 2^(e-1) - 1, with "fnuz" and "uz" 2^(e-1)
    exponent field 0: (-1)^s * 2^(1-bias) * mantissa/2^m;  else (-1)^s * 2^(field-bias) * (1 + mantissa/2^m)

specials  infinity               NaN                          negative zero   source
ieee      top field, mantissa 0  top field, other mantissas   yes             IEEE 754
fn        none                   the all-ones code            yes             OCP 8-bit floating point, rev. 1.0, table 1
none      none                   none                         yes             OCP Microscaling v1.0, section 5.3
fnuz      none                   the code of negative zero    no              ml_dtypes; P3109 "finite"
uz        all ones after sign    the code of negative zero    no              P3109 "extended"

Unsigned formats ("ueXmY") have no sign bit and no negative zero: "fnuz" and "uz" have NaN at the all-ones code and "uz" infinity right
below it, as unsigned P3109 formats do. UE5M3 is in use as ue5m3fn (largest value 114688) and as ue5m3, of IEEE kind (61440).
A bias of one's own is written as in ml_dtypes: e4m3b11fnuz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.format import Format
from anybit.formats.rounding import Key, to_integer

Specials = Literal["ieee", "fn", "none", "fnuz", "uz"]
SPECIALS: tuple[Specials, ...] = get_args(Specials)

_COMMON_NAMES = {(8, 7, "ieee"): "bf16", (5, 10, "ieee"): "fp16", (8, 23, "ieee"): "fp32"}


def default_specials(bits: int) -> Specials:
    """What a plain name `eXmY` means: formats below 8 bits spend no code on special values, wider ones follow IEEE 754."""
    return "none" if bits < 8 else "ieee"


@dataclass(frozen=True)
class Float(Format):
    """Sign (where `signed`), `exponent_bits` (1-8), `mantissa_bits`: 2 to 16 or 32 bits in all.

    own_bias: subtracted from the exponent field in place of the usual bias; None where it is the usual one.
    """

    exponent_bits: int
    mantissa_bits: int
    specials: Specials
    own_bias: int | None = None
    signed: bool = True

    def __post_init__(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        shape = f"{'' if self.signed else 'u'}e{e}m{m}"
        if not (1 <= e <= 8 and m >= 0):
            raise FormatError(f"floating formats have 1 to 8 exponent bits and 0 or more mantissa bits; got {shape}")
        if not (2 <= self.bits <= 16 or self.bits == 32):
            raise FormatError(f"floating formats have 2 to 16 or 32 bits in all; {shape} has {self.bits}")
        if (e, m) == (8, 0):
            raise FormatError("e8m0 is the unsigned scale format Exponent(8)")
        if self.specials not in SPECIALS:
            raise FormatError(f"special values are 'ieee', 'fn', 'none', 'fnuz' or 'uz'; got {self.specials!r}")
        if self.specials == "ieee" and (e < 2 or m < 1):
            raise FormatError(f"IEEE special values need 2 or more exponent bits and a mantissa bit; got {shape}")
        if self.specials == "fn" and e + m < 3:
            raise FormatError(f"a NaN of all ones needs 3 or more exponent and mantissa bits; got {shape}")
        if self.specials in ("uz", "fnuz") and e + m < 3:
            raise FormatError(f"{self.specials!r} needs 3 or more exponent and mantissa bits; got {shape}")
        if self.own_bias == self._usual_bias:
            object.__setattr__(self, "own_bias", None)
        if e == 8 and self.specials != "ieee" and self.own_bias is None:
            raise FormatError(f"8 exponent bits come with IEEE special values (values must fit float32); got {shape}")
        if self.min_exponent < -126 or self._top >> m > 127 + self.bias:
            raise FormatError(f"{shape} with the bias {self.bias} reaches beyond float32")

    @property
    def name(self) -> str:
        e, m = self.exponent_bits, self.mantissa_bits
        if (e, m, self.specials) in _COMMON_NAMES and self.own_bias is None and self.signed:
            return _COMMON_NAMES[e, m, self.specials]
        bias = "" if self.own_bias is None else f"b{self.own_bias}" if self.own_bias >= 0 else f"bm{-self.own_bias}"
        specials = "" if self.specials == default_specials(self.bits) else self.specials
        return f"{'' if self.signed else 'u'}e{e}m{m}{bias}{specials}"

    @property
    def bits(self) -> int:
        return self.signed + self.exponent_bits + self.mantissa_bits

    @property
    def _usual_bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - (self.specials not in ("uz", "fnuz"))

    @property
    def bias(self) -> int:
        """Subtracted from the exponent field."""
        return self._usual_bias if self.own_bias is None else self.own_bias

    @property
    def min_exponent(self) -> int:
        """log2 of the smallest normal value."""
        return 1 - self.bias

    @property
    def _top(self) -> int:
        """The code of the largest finite value."""
        ones = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        taken = {
            "none": 0,
            "fn": 1,
            "ieee": 1 << self.mantissa_bits,
            "fnuz": not self.signed,
            "uz": 1 + (not self.signed),
        }
        return ones - int(taken[self.specials])

    @property
    def max(self) -> float:
        return self._magnitude(self._top)

    @property
    def min(self) -> float:
        return -self.max if self.signed else 0.0

    @property
    def min_positive(self) -> float:
        return self._magnitude(1)

    @property
    def eps(self) -> float:
        return 2.0**-self.mantissa_bits

    @property
    def has_inf(self) -> bool:
        return self.specials in ("ieee", "uz")

    @property
    def has_nan(self) -> bool:
        return self.specials != "none"

    @property
    def has_negative_zero(self) -> bool:
        """Has -0.0 a code of its own?"""
        return self.signed and self.specials not in ("uz", "fnuz")

    @property
    def steps_beyond(self) -> tuple[float, float]:
        field = self._top >> self.mantissa_bits
        step = 2.0 ** (max(field, 1) - self.bias - self.mantissa_bits)
        return step if self.signed else self.min_positive, step

    @property
    def inf_code(self) -> int:
        return self._top + 1 if self.has_inf else super().inf_code

    @property
    def nan_code(self) -> int:
        ones = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "none":
            return super().nan_code
        if self.specials == "ieee":  # the quiet one
            return self.inf_code | (1 << (self.mantissa_bits - 1))
        return 1 << (self.bits - 1) if self.signed and self.specials != "fn" else ones

    def _magnitude(self, code: int) -> float:
        field, mantissa = code >> self.mantissa_bits, code & ((1 << self.mantissa_bits) - 1)
        if field == 0:
            return mantissa * 2.0 ** (self.min_exponent - self.mantissa_bits)
        return (mantissa + (1 << self.mantissa_bits)) * 2.0 ** (field - self.bias - self.mantissa_bits)

    def _make_table(self) -> NDArray[np.float64]:
        code = np.arange(1 << (self.exponent_bits + self.mantissa_bits))
        field, mantissa = code >> self.mantissa_bits, code & ((1 << self.mantissa_bits) - 1)
        normal = field > 0
        magnitude = np.ldexp(
            (mantissa + (normal << self.mantissa_bits)).astype(np.float64),
            np.where(normal, field - self.bias, self.min_exponent) - self.mantissa_bits,
        )
        magnitude[code > self._top] = np.nan
        if self.has_inf:
            magnitude[self._top + 1] = np.inf
        table = np.concatenate([magnitude, -magnitude]) if self.signed else magnitude
        if not self.has_negative_zero and self.signed:
            table[len(magnitude)] = np.nan
        return table

    def _units(self, xp: Any, x: Any, mode: str, key: Key | None) -> tuple[Any, Any, Any]:
        """(x in units of its spacing, rounded; the spacing; the power of two below |x|, at least the smallest normal)."""
        x = xp.clip(x, self.min, self.max)
        power = xp.clip(arrays.power_below(x), 2.0**self.min_exponent, None)
        spacing = power * 2.0**-self.mantissa_bits
        scaled = x / spacing
        units = to_integer(scaled, mode, key)
        if self.mantissa_bits == 0 and mode in ("nearest_even", "odd"):
            # Without a mantissa the last bit of a code is the exponent's: ties and "odd" go by the exponent field.
            odd_field = (arrays.exponent_of_power(power) - self.min_exponent) % 2 == 0
            size = xp.abs(scaled)
            if mode == "nearest_even":
                units = xp.where((size == 1.5) & ~odd_field, xp.sign(scaled), units)
            else:
                units = xp.where((size > 1) & (size < 2), xp.sign(scaled) * xp.where(odd_field, 1.0, 2.0), units)
        return units, spacing, power

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        units, spacing, _ = self._units(xp, x, mode, key)
        # 0 * spacing loses no sign: -0.0 stays -0.0.
        return units * spacing if self.has_negative_zero else xp.where(units == 0, 0.0, units * spacing)

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        units, _, power = self._units(xp, x, mode, key)
        nan = xp.isnan(units) if self.has_nan else None
        if nan is not None:
            units = xp.where(nan, 0.0, units)
            power = xp.where(nan, 2.0**self.min_exponent, power)
        # With 2^m <= |units| the leading one adds 1 to the exponent field by itself, and a carry to 2^(m+1) adds one more.
        binade = (
            arrays.cast(arrays.exponent_of_power(power), "int64" if self.bits > 16 else "int32") - self.min_exponent
        )
        codes = (binade << self.mantissa_bits) + arrays.cast(xp.abs(units), "int64" if self.bits > 16 else "int32")
        if self.signed:
            negative = xp.signbit(units) if self.has_negative_zero else units < 0
            codes = codes | (arrays.cast(negative, str(codes.dtype).removeprefix("torch.")) << (self.bits - 1))
        return codes if nan is None else xp.where(nan, self.nan_code, codes)

    def _decode(self, xp: Any, codes: Any, dtype: Any) -> Any:
        if self.exponent_bits == 8 and self.signed and self.own_bias is None:  # the upper bits of a float32
            shift = 23 - self.mantissa_bits
            wide = arrays.cast(codes, "int64") << shift if shift else codes
            values = arrays.cast(wide, "int32").view(xp.float32)
            if arrays.is_torch(values):
                return values.to(dtype)
            with np.errstate(invalid="ignore"):  # widening a signalling NaN
                return values.astype(dtype, copy=False)
        return super()._decode(xp, codes, dtype)


@dataclass(frozen=True)
class Exponent(Format):
    """Powers of two 2^(code - bias), the OCP scale format E8M0 (Microscaling v1.0, section 5.4.1): no sign, no zero, no infinity.

    The all-ones code is NaN. Zero and negative numbers round to the smallest value; rounding is by value (1.5 lies midway of 1 and 2).
    """

    width: int = 8

    def __post_init__(self) -> None:
        if self.width != 8:
            raise FormatError(f"the scale format of exponents has 8 bits; got {self.width}")

    @property
    def name(self) -> str:
        return f"e{self.width}m0"

    @property
    def bits(self) -> int:
        return self.width

    @property
    def bias(self) -> int:
        """Subtracted from the code."""
        return (1 << (self.width - 1)) - 1

    @property
    def max(self) -> float:
        return 2.0 ** ((1 << self.width) - 2 - self.bias)

    @property
    def min(self) -> float:
        return 2.0**-self.bias

    @property
    def min_positive(self) -> float:
        return self.min

    @property
    def eps(self) -> float:
        return 1.0

    @property
    def has_nan(self) -> bool:
        return True

    @property
    def steps_beyond(self) -> tuple[float, float]:
        return self.min, self.max

    @property
    def nan_code(self) -> int:
        return (1 << self.width) - 1

    def _make_table(self) -> NDArray[np.float64]:
        table: NDArray[np.float64] = np.ldexp(1.0, np.arange(2**self.width) - self.bias)
        table[-1] = np.nan
        return table

    def _exponent(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        """Exponents as float64; NaN for NaN."""
        # float64, because 2^-127 is subnormal in float32.
        x = xp.clip(arrays.cast(x, "float64"), self.min, self.max)
        nan = xp.isnan(x)
        power = arrays.power_below(xp.where(nan, 1.0, x))
        exponent = arrays.cast(arrays.exponent_of_power(power), "float64")
        if mode == "nearest_even":
            above = x / power - 1.5
            odd = (exponent + self.bias) % 2 == 1
            up = (above > 0) | ((above == 0) & odd)
            return xp.where(nan, float("nan"), exponent + up)
        position = x / power - 1
        if mode == "odd":
            odd = (exponent + self.bias) % 2 == 1
            return xp.where(nan, float("nan"), exponent + ((position > 0) & ~odd))
        # The position within [power, 2 power], shifted so that the modes see a number whose neighbours are the two exponents.
        step = to_integer(position, mode, key)
        return xp.where(nan, float("nan"), exponent + step)

    def _round(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        exponent = self._exponent(xp, x, mode, key)
        return xp.exp2(exponent)

    def _encode(self, xp: Any, x: Any, mode: str, key: Key | None) -> Any:
        exponent = self._exponent(xp, x, mode, key)
        nan = xp.isnan(exponent)
        return xp.where(nan, 2**self.width - 1, arrays.cast(xp.where(nan, 0.0, exponent), "int32") + self.bias)
