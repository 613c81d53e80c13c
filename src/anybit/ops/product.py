"""Approximate rules of multiplication: what a product of two numbers is when the multiplier is an adder.

With operands (-1)^s 2^E (1 + f) of m mantissa bits, and the constant 2^-l that stands for the mean of the missing term f_x f_y:

rule          product of magnitudes                                      source
exact         |x| |y| in float32                                         IEEE 754
mitchell      the sum of both bit patterns minus the bias                Mitchell, "Computer multiplication and division using binary
                                                                         logarithms", 1962
lmul_add      the same plus 2^-l; a carry doubles the value              L-Mul (arXiv 2410.00907), as an integer addition
lmul_formula  2^(Ex + Ey) (1 + fx + fy + 2^-l), one rounding to float32  L-Mul, equation 1 as printed

l = m for m <= 3, 3 for m = 4, 4 beyond. The last two differ where fx + fy + 2^-l >= 1: the adder then gives more, and is nearer to the
exact product from m = 3 on. Operands are first rounded (nearest even) to their format; zeros and its subnormals count as zeros. A product
below the smallest normal value of the format is a zero, one above its largest an infinity, or the largest value where there is no
infinity. NaN and infinities: NaN with anything and infinity times a zero give NaN, other infinities infinity.

This is emulation: on processors with multipliers it costs several times what they would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import Float

Rule = Literal["exact", "lmul_add", "lmul_formula", "mitchell"]
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True)
class Product:
    """A rule, the format of the operands (a name; "" for exact float32 operands), and a gain that multiplies finished sums.

    The rules but "exact" are biased; `calibrated_gain` finds the gain that removes the bias. FormatError for an unknown rule, and for
    operand formats that are not floating with 2 or more exponent bits and a mantissa of 1 to 23 bits.
    """

    rule: Rule = "exact"
    operands: str = ""
    gain: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise FormatError(f"unknown rule of multiplication {self.rule!r}; known: {', '.join(RULES)}")
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise FormatError(f"the gain of a product must be positive; got {self.gain}")
        if self.operands:
            formats.get(self.operands)
        if self.rule == "exact":
            return
        fmt = formats.get(self.operands) if self.operands else formats.get("bf16")
        if not isinstance(fmt, Float) or fmt.exponent_bits < 2 or fmt.mantissa_bits < 1:
            raise FormatError(
                f"{self.rule} adds exponents and mantissas: its operands need a floating format of 2 or more exponent "
                f"bits and a mantissa; got {fmt.name}"
            )

    @property
    def format(self) -> Float:
        """The format of operands of the approximate rules."""
        fmt = formats.get(self.operands or "bf16")
        assert isinstance(fmt, Float), "checked when made"
        return fmt

    @property
    def constant(self) -> int:
        """2^-l in units of 2^-23; 0 for exact and mitchell."""
        if self.rule in ("exact", "mitchell"):
            return 0
        m = self.format.mantissa_bits
        return 1 << (23 - (m if m <= 3 else 3 if m == 4 else 4))

    @property
    def smallest(self) -> float:
        """The smallest normal value of the operand format, below which products are zeros."""
        return float(2.0**self.format.min_exponent)

    @property
    def beyond(self) -> float:
        """What a product above the largest value becomes."""
        return math.inf if self.format.has_inf else self.format.max

    def prepare(self, x: Tensor) -> Tensor:
        """x as operands: float32 values of the format, zeros for its subnormals (the exact rule keeps those)."""
        x = x.float()
        if self.rule == "exact":
            return formats.get(self.operands).round(x) if self.operands else x
        rounded = self.format.round(x)
        if not finite(x):  # rounding saturates infinities; they are products' business here
            rounded = torch.where(x.isinf(), x, rounded)
        low = rounded.abs() < self.smallest
        return torch.where(low, rounded * 0.0, rounded)  # zeros keep their sign


def finite(x: Tensor) -> bool:
    """Is every element finite? One pass; NaN is seen because it is the extreme of whatever holds it."""
    if not x.numel():
        return True
    low, high = x.aminmax()
    return math.isfinite(float(low)) and math.isfinite(float(high))


def named(multiply: str | Product) -> Product:
    """A `Product` from itself or the name of its rule."""
    if isinstance(multiply, Product):
        return multiply
    if multiply not in RULES:
        raise FormatError(f"unknown rule of multiplication {multiply!r}; known: {', '.join(RULES)}")
    return Product(multiply)  # type: ignore[arg-type]


def multiply(a: Tensor, b: Tensor, product: Product) -> Tensor:
    """The products of prepared operands that broadcast, float32, without the gain: the readable reference."""
    if product.rule == "exact":
        return a * b
    shape = np.broadcast_shapes(a.shape, b.shape)
    a, b = a.expand(shape), b.expand(shape)
    ia, ib = a.contiguous().view(torch.int32).long(), b.contiguous().view(torch.int32).long()
    one, fraction = 0x3F800000, 0x007FFFFF
    size_a, size_b = ia & 0x7FFFFFFF, ib & 0x7FFFFFFF
    if product.rule == "lmul_formula":
        # int to float rounds to nearest even where 1 + fx + fy + 2^-l needs more than 24 bits.
        mantissa = ((size_a & fraction) + (size_b & fraction) + product.constant + (1 << 23)).float()
        pattern = mantissa.view(torch.int32).long() + (size_a & ~fraction) + (size_b & ~fraction) - (277 << 23)
    else:
        pattern = size_a + size_b - one + product.constant
    largest = int(np.float32(product.format.max).view(np.int32))
    zero = (size_a == 0) | (size_b == 0) | (pattern < int(np.float32(product.smallest).view(np.int32)))
    beyond = (pattern > largest) | a.isinf() | b.isinf()
    value = pattern.clamp(0, largest).int().view(torch.float32)
    value = torch.where(zero & ~a.isinf() & ~b.isinf(), 0.0, torch.where(beyond, product.beyond, value))
    value = torch.where(a.isinf() | b.isinf(), math.inf, value)
    value = torch.where((ia ^ ib) & 0x80000000 != 0, -value, value)
    invalid = a.isnan() | b.isnan() | (a.isinf() & (size_b == 0)) | (b.isinf() & (size_a == 0))
    return torch.where(invalid, math.nan, value)


def calibrated_gain(x: Tensor, w: Tensor, product: Product) -> float:
    """sum |exact| / sum |approximate| over all products of x [m, k] and w [n, k]: the gain that removes the rule's bias on this data."""
    from anybit.ops.emulated import emulated_matmul

    a, b = x.float().abs().reshape(-1, x.shape[-1]), w.float().abs()
    exact = float((a.double().sum(0) * b.double().sum(0)).sum())
    approximate = float(emulated_matmul(a, b, replace(product, gain=1.0)).double().sum())
    return exact / approximate if approximate > 0 and exact > 0 else 1.0
