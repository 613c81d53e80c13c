"""Orthonormal Hadamard transforms: fast for powers of two, Paley's construction for the factors 12, 20, 28, block-diagonal for the rest.

A rotation R (R Rᵀ = I) leaves a linear layer unchanged when both sides are rotated, y = x Wᵀ = (x R)(W R)ᵀ, and spreads single large
entries over a whole block, so that absmax scales waste fewer levels (QuIP, Chee et al. 2023; QuaRot, Ashkboos et al. 2024).
Random signs before the transform make the bound hold with high probability for any input.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.formats.native import empty
from anybit.ops import native


@dataclass(frozen=True)
class Options:
    """Where a model is rotated, and how.

    residual: the residual stream, folded into the matrices around it.  values: the values of each head, folded.  down: the input of the
    down projection, online.  block: order of the diagonal blocks of the residual stream and of `down`, 0 for the largest; seed: of the
    random signs.
    """

    residual: bool = True
    values: bool = True
    down: bool = True
    block: int = 0
    seed: int = 0


@dataclass(frozen=True)
class InputOptions:
    """The input of every linear layer is rotated online in blocks of `block`, or the largest order below that divides its width.

    seed: of the random signs, -1 for none.
    """

    block: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block < 1 or self.block & (self.block - 1):
            raise ValueError(f"a block is a power of two; got {self.block}")


PALEY = {12: 11, 20: 19, 28: 27}
"""Order of a Hadamard matrix -> the prime power q = order - 1 of Paley's first construction; 27 is built over GF(3^3)."""


def block_size(width: int) -> int:
    """The largest order dividing `width` for which a transform exists: 2^k, 12·2^k, 20·2^k or 28·2^k; 1 where there is none but 1."""
    if width < 1:
        raise ValueError(f"the width of a Hadamard transform must be at least 1; got {width}")
    best = 1
    for factor in (1, *PALEY):
        n = factor
        while width % n == 0:
            best = max(best, n)
            n *= 2
    return best


@dataclass(frozen=True)
class Kernel:
    """What the compiled transform is given: the matrix of a small order [order, order] of 1 and -1, which it doubles up to `block`; for
    powers of two that of order 1, as doublings are all there is."""

    order: int
    block: int
    inverse: bool
    small: NDArray[np.float32]

    def attributes(self) -> dict[str, int]:
        """As the native engine takes them."""
        return {"order": self.order, "block": self.block, "inverse": int(self.inverse)}


@functools.cache
def kernel(block: int, inverse: bool = False) -> Kernel:
    """For blocks of an order; ValueError where no matrix of that order is known. The small order fills vectors of 16 where it can."""
    base, doublings, block = _factor(block, block)
    if base == 1:
        return Kernel(1, block, inverse, np.ones(1, np.float32))
    order = next((base << i for i in range(doublings + 1) if (base << i) % 16 == 0), block)
    unit = torch.eye(order)
    matrix = _inverse(unit, order) if inverse else _hadamard(unit, order)
    return Kernel(order, block, inverse, np.ascontiguousarray((matrix * math.sqrt(order)).round().numpy()).reshape(-1))


def _compiled(x: Tensor, block: int | None, inverse: bool, signs: Tensor | None) -> Tensor | None:
    """The transform by the native module; None where it is missing, and for what it does not take."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.requires_grad or not x.numel():
        return None
    module = native.load()
    if module is None:
        return None
    of = kernel(_factor(x.shape[-1], block)[2], inverse)
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous()
    out = torch.from_numpy(empty(rows.numel(), np.float32)).reshape(rows.shape)
    module.hadamard(
        rows.numpy(), of.small, of.order, of.block, inverse, None if signs is None else signs.numpy(), out.numpy()
    )
    return out.reshape(x.shape)


def hadamard(x: Tensor, block: int | None = None) -> Tensor:
    """Multiply the last dimension by the block-diagonal orthonormal Hadamard matrix.

    x: [..., width], a floating dtype; block: order of each diagonal block, default `block_size(width)`. Returns the same shape and
    dtype. Symmetric for powers of two (so its own inverse); use `inverse` for the general case. Raises ValueError where
    the block does not divide the width or no matrix of that order is known. float32 on the CPU runs compiled.
    """
    return rotate(x, None, block)


def _hadamard(x: Tensor, block: int | None) -> Tensor:
    """The readable transform, of any dtype, device and with gradients."""
    base, doublings, block = _factor(x.shape[-1], block)
    y = x.reshape(-1, block)
    y = (y.reshape(-1, base) @ _paley(base).to(y)).reshape(y.shape) if base > 1 else y
    for level in range(doublings):
        half = base << level
        y = y.reshape(-1, 2, half)
        y = torch.stack((y[:, 0] + y[:, 1], y[:, 0] - y[:, 1]), 1)
    return (y.reshape(x.shape) if doublings or base > 1 else x) / math.sqrt(block)


def inverse(x: Tensor, block: int | None = None) -> Tensor:
    """The transpose of `hadamard`, which is its inverse; same arguments."""
    return unrotate(x, None, block)


def _inverse(x: Tensor, block: int | None) -> Tensor:
    base, doublings, block = _factor(x.shape[-1], block)
    y = x.reshape(-1, block)
    for level in range(doublings):
        half = base << level
        y = y.reshape(-1, 2, half)
        y = torch.stack((y[:, 0] + y[:, 1], y[:, 0] - y[:, 1]), 1)
    y = y.reshape(-1, base) @ _paley(base).T.to(y) if base > 1 else y
    return y.reshape(x.shape) / math.sqrt(block)


@functools.lru_cache(maxsize=64)
def signs(width: int, seed: int) -> Tensor:
    """Random signs, float32 [width], a function of width and seed; not to be written to."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (width,), generator=g).float() * 2 - 1


def rotate(x: Tensor, seed: int | None = None, block: int | None = None) -> Tensor:
    """x D H along the last dimension, D the diagonal of `signs(width, seed)` (identity where seed is None)."""
    turned = None if seed is None else signs(x.shape[-1], seed)
    found = _compiled(x, block, False, turned)
    if found is not None:
        return found
    return _hadamard(x if turned is None else x * turned.to(x), block)


def unrotate(x: Tensor, seed: int | None = None, block: int | None = None) -> Tensor:
    """The inverse of `rotate`: x Hᵀ D."""
    turned = None if seed is None else signs(x.shape[-1], seed)
    found = _compiled(x, block, True, turned)
    if found is not None:
        return found
    y = _inverse(x, block)
    return y if turned is None else y * turned.to(y)


@dataclass(frozen=True)
class Rotation:
    """x -> x D H along the last dimension: a block-diagonal Hadamard matrix behind random signs.

    block: order of each diagonal block.  seed: of the signs, None for none.
    """

    block: int
    seed: int | None = None

    def __post_init__(self) -> None:
        _factor(self.block, self.block)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width], width a multiple of the block."""
        return rotate(x, self.seed, self.block)

    def inverse(self, x: Tensor) -> Tensor:
        """What undoes `forward`."""
        return unrotate(x, self.seed, self.block)

    def matrix(self, width: int) -> Tensor:
        """The orthogonal [width, width] R of x R, float32."""
        return self.forward(torch.eye(width))


def rotate_hessian(h: Tensor, seed: int | None = None, block: int | None = None) -> Tensor:
    """Second moment [K, K] of rotated inputs: Rᵀ h R."""
    return rotate(rotate(h, seed, block).T, seed, block).T


def _factor(width: int, block: int | None) -> tuple[int, int, int]:
    block = block_size(width) if block is None else block
    if block < 1 or width % block:
        raise ValueError(f"a Hadamard block of {block} does not divide the width {width}")
    for base in (1, *PALEY):
        if block % base == 0 and (block // base).bit_count() == 1:
            return base, (block // base).bit_length() - 1, block
    raise ValueError(f"no Hadamard matrix of order {block} here; known are 2^k, 12·2^k, 20·2^k and 28·2^k")


@functools.cache
def _paley(order: int) -> Tensor:
    """A Hadamard matrix (entries ±1, float32) by Paley's first construction over the field with order - 1 elements."""
    q = PALEY[order]
    sub = _subtraction_table(q)
    squares = {int(s) for s in _squares(q)}
    chi = torch.tensor([0.0] + [1.0 if a in squares else -1.0 for a in range(1, q)])
    s = torch.zeros(order, order)
    s[0, 1:], s[1:, 0] = 1.0, -1.0
    s[1:, 1:] = chi[sub]
    return s + torch.eye(order)


def _digits(a: int) -> list[int]:
    return [a % 3, a // 3 % 3, a // 9]


def _subtraction_table(q: int) -> Tensor:
    a = torch.arange(q)
    if q != 27:
        return (a[:, None] - a[None, :]) % q
    rows = [
        [
            sum(((x - y) % 3) * 3**i for i, (x, y) in enumerate(zip(_digits(i), _digits(j), strict=True)))
            for j in range(q)
        ]
        for i in range(q)
    ]
    return torch.tensor(rows)


def _squares(q: int) -> list[int]:
    if q != 27:
        return [a * a % q for a in range(1, q)]
    return [_multiply27(a, a) for a in range(1, q)]


def _multiply27(a: int, b: int) -> int:
    """Product in GF(27) = GF(3)[t] / (t³ - t + 1); elements are base-3 digit strings."""
    product = [0] * 5
    for i, x in enumerate(_digits(a)):
        for j, y in enumerate(_digits(b)):
            product[i + j] += x * y
    for power in (4, 3):  # t³ = t - 1
        product[power - 2] += product[power]
        product[power - 3] -= product[power]
    return sum(product[i] % 3 * 3**i for i in range(3))
