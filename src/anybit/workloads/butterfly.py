"""Butterfly products: O(n log n) linear transforms as log2(n) sparse factors of 2×2 blocks (Dao et al., ICML 2019, arXiv 1903.05895).

A twiddle tensor is [log2 n, n/2, 2, 2].  Stage i mixes entries at distance 2^i: block j of the n/2 acts on positions
p = 2 (j - j mod 2^i) + j mod 2^i and p + 2^i.  Exact constructors are given for the Hadamard and the discrete Fourier transform;
any stage's entries may be rounded to a `Format`, which is how the cost of a low-precision transform is studied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.formats import Format
from anybit.formats.rounding import Mode


@dataclass(frozen=True)
class Butterfly:
    """x [..., n] -> x[..., permutation] through every stage of `twiddle` [log2 n, n/2, 2, 2], real or complex."""

    twiddle: Tensor
    permutation: Tensor | None = None

    def __post_init__(self) -> None:
        stages, pairs = self.twiddle.shape[:2]
        if self.twiddle.shape[2:] != (2, 2) or pairs * 2 != 1 << stages:
            raise ValueError(f"twiddle must be [log2 n, n/2, 2, 2]; got {list(self.twiddle.shape)}")

    @property
    def size(self) -> int:
        """n, the length of the transformed vectors."""
        return 2 * self.twiddle.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., n] of a dtype the twiddles promote with -> [..., n]; n log2(n) multiply-adds a vector."""
        if x.shape[-1] != self.size:
            raise ValueError(f"this butterfly transforms vectors of {self.size}; got {x.shape[-1]}")
        y = x if self.permutation is None else x[..., self.permutation]
        for i, stage in enumerate(self.twiddle):
            s = 1 << i
            pairs = y.reshape(*x.shape[:-1], self.size // (2 * s), 2, s)
            t = stage.reshape(self.size // (2 * s), s, 2, 2).permute(0, 2, 3, 1)
            y = (t * pairs.unsqueeze(-3)).sum(-2).reshape(*x.shape[:-1], self.size)
        return y

    def dense(self) -> Tensor:
        """The matrix M [n, n] with self(x) = x Mᵀ."""
        return self(torch.eye(self.size, dtype=self.twiddle.dtype)).T

    def rounded(self, fmt: Format, mode: Mode = "nearest_even") -> Butterfly:
        """The same butterfly with every twiddle (real and imaginary part) rounded to `fmt` scaled so that 1 is its largest value."""
        scale = float(fmt.max)

        def on_grid(t: Tensor) -> Tensor:
            rounded: Tensor = fmt.round((t.double() * scale).contiguous(), mode) / scale
            return rounded.to(t.dtype)

        t = self.twiddle
        new = torch.complex(on_grid(t.real), on_grid(t.imag)) if t.is_complex() else on_grid(t)
        return Butterfly(new, self.permutation)


def hadamard(n: int) -> Butterfly:
    """The orthonormal Hadamard transform of a power-of-two order n, float64."""
    block = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    return Butterfly(block.expand(_log2(n), n // 2, 2, 2).clone())


def fourier(n: int) -> Butterfly:
    """The orthonormal discrete Fourier transform of a power-of-two order n, complex128: decimation in time behind bit reversal."""
    stages = _log2(n)
    twiddle = torch.empty(stages, n // 2, 2, 2, dtype=torch.complex128)
    for i in range(stages):
        j = torch.arange(1 << i, dtype=torch.float64)
        w = torch.polar(torch.ones_like(j), -math.pi * j / (1 << i)).repeat(n // 2 >> i)
        one = torch.ones_like(w)
        twiddle[i] = torch.stack((torch.stack((one, w), -1), torch.stack((one, -w), -1)), -2) / math.sqrt(2)
    order = torch.zeros(n, dtype=torch.int64)
    for bit in range(stages):
        order |= (torch.arange(n) >> bit & 1) << (stages - 1 - bit)
    return Butterfly(twiddle, order)


def _log2(n: int) -> int:
    if n < 2 or n.bit_count() != 1:
        raise ValueError(f"a butterfly needs a power of two of at least 2; got {n}")
    return n.bit_length() - 1
