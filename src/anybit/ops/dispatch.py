"""Choosing a kernel: an ordered table of candidates that accept a problem or say why not, and what each is predicted to take."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anybit.ops import costs as known
from anybit.ops import native
from anybit.ops.costs import Costs


@dataclass(frozen=True)
class Problem:
    """y[m, n] = x[m, k] W[n, k]ᵀ, as kernels see it.

    weights: spec of the weight's format, or "fp32", "bf16", "fp16" for a plain tensor.  weight_bytes: what one pass reads.
    act: spec of the activations, None for exact.  packed: the weight is in the kernels' layout.  integer: so that int8 activations
    multiply it as integers.  group: columns a scale, as packed.  device: of the operands.
    order: of the packed bits (`ops.packed.ORDERS`).
    element: what kernels unpack (`packed.element`), such as integer4, byte4 (a codebook of small integers), word4, bf16; or the type of a
    plain tensor.
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
    element: str = ""
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


def costs() -> Costs:
    """Of this machine with the active instruction set and pool: measured by `anybit doctor --calibrate`, or shipped."""
    return known.of(*machine())[0]


def calibrated() -> bool:
    """Whether `costs` were measured on this machine."""
    return known.of(*machine())[1]


def machine() -> tuple[str, int]:
    """The active instruction set and the number of threads of the pool."""
    module = native.load()
    if module is None:
        return "scalar", os.cpu_count() or 1
    return module.isa(), module.threads()
