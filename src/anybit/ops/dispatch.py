"""Choosing a kernel: an ordered table of candidates that accept a problem or say why not, and what each is predicted to take."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anybit.ops import native


@dataclass(frozen=True)
class Problem:
    """y[m, n] = x[m, k] W[n, k]ᵀ, as kernels see it.

    weights: spec of the weight's format, or "fp32", "bf16", "fp16" for a plain tensor.  weight_bytes: what one pass reads.
    act: spec of the activations, None for exact.  packed: the weight is in the kernels' layout.  integer: so that int8 activations
    multiply it as integers.  group: columns a scale, as packed.  device: of the operands.  order: of the packed bits (`ops.packed.ORDERS`).
    """

    m: int
    n: int
    k: int
    weights: str
    weight_bytes: int
    act: str | None
    packed: bool
    integer: bool
    group: int
    padded: bool
    device: str = "cpu"
    order: str = "tiles"


@dataclass(frozen=True)
class Kernel:
    """One implementation: accepts(problem) -> None or the reason it cannot, cost(problem) -> predicted seconds, run(x, w, bias, act)."""

    name: str
    accepts: Callable[[Problem], str | None]
    cost: Callable[[Problem], float]
    run: Callable[..., Any]


@dataclass(frozen=True)
class Choice:
    """What was chosen for a problem, and what every candidate said: (name, reason for refusing or None, predicted seconds)."""

    problem: Problem
    kernel: Kernel
    candidates: tuple[tuple[str, str | None, float | None], ...]

    @property
    def why(self) -> str:
        """One sentence."""
        others = [
            (name, cost) for name, refused, cost in self.candidates if cost is not None and name != self.kernel.name
        ]
        mine = self.kernel.cost(self.problem)
        if not others:
            refused = "; ".join(f"{name}: {reason}" for name, reason, _ in self.candidates if reason)
            return f"the only one that accepts it ({refused})" if refused else "the only one there is"
        name, cost = min(others, key=lambda row: row[1])
        return f"predicted {cost / mine:.1f} times as fast as {name}, the next"


def choose(table: Sequence[Kernel], problem: Problem) -> Choice:
    """The accepting kernel of least predicted time; the earlier one of a tie. ValueError listing every refusal where none accepts."""
    candidates: list[tuple[str, str | None, float | None]] = []
    best: tuple[float, Kernel] | None = None
    for kernel in table:
        refused = kernel.accepts(problem)
        cost = kernel.cost(problem) if refused is None else None
        candidates.append((kernel.name, refused, cost))
        if cost is not None and (best is None or cost < best[0]):
            best = cost, kernel
    if best is None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason, _ in candidates)
        raise ValueError(f"no kernel accepts {problem}: {reasons}")
    return Choice(problem, best[1], tuple(candidates))


@dataclass(frozen=True)
class Rates:
    """What one machine sustains: bytes/s read, multiply-adds/s of int8 and float32 kernels and of torch's float32 product,
    seconds of a call. Rough figures of one x86-64 core generation; only their ratios decide."""

    bandwidth: float
    int8: float
    exact: float
    torch: float
    call: float


PER_THREAD = {
    "amx": Rates(15e9, 550e9, 64e9, 50e9, 5e-6),
    "avx512bf16": Rates(20e9, 250e9, 60e9, 50e9, 5e-6),
    "avx512": Rates(20e9, 250e9, 60e9, 50e9, 5e-6),
    "avx2": Rates(18e9, 90e9, 38e9, 45e9, 5e-6),
    "neon": Rates(15e9, 60e9, 18e9, 25e9, 5e-6),
    "scalar": Rates(8e9, 1.5e9, 0.8e9, 40e9, 5e-6),
}
"""Per thread, by instruction set; measured on Sapphire Rapids (amx, avx512) and Zen 3 (avx2), the others from published peaks."""


@functools.cache
def _rates(isa: str, threads: int) -> Rates:
    one = PER_THREAD.get(isa, PER_THREAD["scalar"])
    # two threads nearly double a core's share of the bandwidth, more add little
    reach = min(threads, 2 + 0.25 * max(0, threads - 2))
    return Rates(one.bandwidth * reach, one.int8 * threads, one.exact * threads, one.torch * threads, one.call)


def rates() -> Rates:
    """Of this machine with the active instruction set and pool."""
    module = native.load()
    if module is None:
        return _rates("scalar", os.cpu_count() or 1)
    return _rates(str(module.isa()), int(module.threads()))
