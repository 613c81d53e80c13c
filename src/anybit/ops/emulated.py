"""Matrix products in arithmetic that the machine does not have: other products, accumulators of few bits, a stated order of additions.

sequential  s = R(s + R(p)) for k = 0, 1, …: every product and every sum is rounded to the accumulator
chunked     products are summed in float32 over `chunk` terms in order; s = R(s + R(part)): accumulators with a wide stage in front
tree        the same parts are leaves of a binary tree that depends on k only: R(left + right), pairs of neighbours first, a half
            without partner goes up unchanged

R rounds to nearest even and saturates, as `Format.round` does. Sums start at +0, so no order of zeros shows. Accumulators have
NaN and up to 10 mantissa bits, or are float32: with more, the float32 addition followed by R would round twice (Figueroa, "When is double
rounding innocuous?", 1995: 24 >= 2 (m + 1) + 2). An accumulator with fewer mantissa bits than the operands is refused unless `narrow`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import Float
from anybit.formats import native as native_formats
from anybit.ops import native
from anybit.ops.product import Product, finite, multiply, named

Order = Literal["sequential", "chunked", "tree"]
ORDERS: tuple[str, ...] = get_args(Order)
_MOST_MANTISSA = 10


@dataclass(frozen=True)
class Accumulator:
    """What sums are kept in: format (a name), order, terms of a chunk or leaf, and whether it may be narrower than the operands.

    FormatError for formats and orders that the module's docstring does not allow.
    """

    format: str = "fp32"
    order: Order = "sequential"
    chunk: int = 256
    narrow: bool = False

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise FormatError(f"unknown order of additions {self.order!r}; known: {', '.join(ORDERS)}")
        if self.chunk < 1:
            raise FormatError(f"a chunk has one term or more; got {self.chunk}")
        fmt = formats.get(self.format)
        if self.format != "fp32" and not (
            isinstance(fmt, Float) and fmt.has_nan and fmt.mantissa_bits <= _MOST_MANTISSA and fmt.exponent_bits > 1
        ):
            raise FormatError(
                f"accumulators are fp32 or floating formats with NaN, 2 or more exponent bits and up to {_MOST_MANTISSA} "
                f"mantissa bits (others would round twice); got {fmt.name}"
            )

    def round(self, x: Tensor) -> Tensor:
        """x in the accumulator's format."""
        return x if self.format == "fp32" else formats.get(self.format).round(x)


def emulated_matmul(
    x: Tensor,
    w: Tensor,
    multiply: str | Product = "exact",
    accumulate: Accumulator | None = None,
    reference: bool = False,
) -> Tensor:
    """x [..., k] times w [n, k] transposed in emulated arithmetic -> float32 [..., n]; the gain multiplies finished sums.

    `reference` takes the readable code, whose bits the kernels match. Results do not depend on threads, batch or instruction set, and have
    no gradient.
    Raises FormatError for integer tensors and where the accumulator is narrower than the operands without its `narrow`.
    """
    product, accumulator = named(multiply), accumulate or Accumulator()
    if not (x.is_floating_point() and w.is_floating_point()):
        raise FormatError(f"emulated products take floating tensors; got {x.dtype} and {w.dtype}")
    if w.ndim != 2 or not x.ndim or x.shape[-1] != w.shape[-1]:
        raise FormatError(f"x [..., k] and w [n, k] must share k; got {list(x.shape)} and {list(w.shape)}")
    if product.rule != "exact" or product.operands:
        operands = formats.get(product.operands) if product.operands else product.format
        bits = operands.mantissa_bits if isinstance(operands, Float) else 0
        wide = formats.get(accumulator.format)
        if isinstance(wide, Float) and wide.mantissa_bits < bits and not accumulator.narrow:
            raise FormatError(
                f"the accumulator {wide.name} has fewer mantissa bits than the operands ({operands.name}); "
                "say narrow=True where that is meant"
            )
    rows = product.prepare(x.detach().reshape(prod(x.shape[:-1]), x.shape[-1]))
    weight = product.prepare(w.detach())
    module = None if reference else native.load()
    usual = product.rule == "exact" or (finite(rows) and finite(weight))
    if module is None or x.device.type != "cpu" or not usual or not _native_sums(accumulator):
        y = _reference(rows, weight, product, accumulator)
    else:
        y = _native(module, rows, weight, product, accumulator)
    return y.reshape(*x.shape[:-1], w.shape[0])


def _native_sums(accumulator: Accumulator) -> bool:
    """Do the kernels round sums to this format?"""
    if accumulator.format == "fp32":
        return True
    grid = native_formats.grid(formats.get(accumulator.format))
    return grid is not None and bool(grid.is_floating)


def _native(module: Any, x: Tensor, w: Tensor, product: Product, accumulator: Accumulator) -> Tensor:
    y = torch.zeros(x.shape[0], w.shape[0])
    rule = {"exact": "exact", "lmul_formula": "formula"}.get(product.rule, "add")
    approximate = product.rule != "exact"
    grid = None if accumulator.format == "fp32" else native_formats.grid(formats.get(accumulator.format))
    module.emulated_matmul(
        x.contiguous().numpy(),
        w.contiguous().numpy(),
        rule,
        product.constant,
        product.smallest if approximate else 0.0,
        product.format.max if approximate else 0.0,
        product.beyond if approximate else 0.0,
        grid,
        accumulator.order,
        accumulator.chunk,
        product.gain,
        y.numpy(),
    )
    return y


def _reference(x: Tensor, w: Tensor, product: Product, accumulator: Accumulator) -> Tensor:
    """One term of every sum at a time, in float32 [m, n]."""
    depth, r = x.shape[1], accumulator.round

    def term(k: int) -> Tensor:
        return multiply(x[:, k, None], w[None, :, k], product)

    total = x.new_zeros(x.shape[0], w.shape[0])
    if accumulator.order == "sequential":
        for k in range(depth):
            total = r(total + r(term(k)))
        return total * product.gain
    parts = []
    for begin in range(0, depth, accumulator.chunk):
        part = torch.zeros_like(total)
        for k in range(begin, min(begin + accumulator.chunk, depth)):
            part = part + term(k)
        parts.append(r(part))
    if accumulator.order == "chunked":
        for part in parts:
            total = r(total + part)
        return total * product.gain
    while len(parts) > 1:
        pairs = [r(a + b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(parts) - len(parts) % 2 :]
    return (parts[0] if parts else total) * product.gain
