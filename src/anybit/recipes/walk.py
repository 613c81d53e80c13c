"""Walking calibration windows through a plan a segment at a time: memory is one block's weights and the buffers
between blocks.

A segment is what stands before the first block, one block, or what follows the last. Windows are one sequence each,
from position 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anybit.models import Plan, WeightRef
from anybit.models.interpreter import Buffers, as_float, run
from anybit.models.weights import Weight, Weights

OnLinear = Callable[[int, Tensor], None]
"""(index of a linear op in the plan, its input [tokens, K])."""

Segment = tuple[int, int]


def segments(plan: Plan) -> list[Segment]:
    """Half-open op ranges covering the plan: before the blocks, each block, after them."""
    first, last = plan.blocks[0][0], plan.blocks[-1][1]
    return [(0, first), *plan.blocks, (last, len(plan.ops))]


def live(plan: Plan, at: int) -> set[str]:
    """Buffers that ops from `at` on read before writing them."""
    needed: set[str] = set()
    written: set[str] = set()
    for op in plan.ops[at:]:
        reads = [*op.inputs, *([op.output] if op.attrs.get("accumulate") else [])]
        needed |= {name for name in reads if name not in written}
        written.add(op.output)
    return needed


class Held:
    """Weights as float32, kept from first use until `drop`: a segment's weights are read once for all windows."""

    def __init__(self, inner: Weights) -> None:
        self._inner = inner
        self._held: dict[WeightRef, Tensor] = {}

    def resolve(self, ref: WeightRef) -> Weight:
        """The float32 values of what the plan names."""
        if ref not in self._held:
            self._held[ref] = as_float(self._inner.resolve(ref))
        return self._held[ref]

    def drop(self) -> None:
        """Let go of everything held."""
        self._held.clear()


class Walk:
    """The buffers of every window at one place of the plan."""

    def __init__(self, plan: Plan, ids: Sequence[Tensor]) -> None:
        self.plan = plan
        self.at = 0
        self.states: list[Buffers] = [{"ids": window} for window in ids]

    @torch.no_grad()
    def visit(self, stop: int, weights: Weights, on_linear: OnLinear) -> None:
        """Show the inputs of every linear op up to `stop`, without moving."""
        linear = [index for index in range(self.at, stop) if self.plan.ops[index].kind == "linear"]
        if not linear:
            return
        for state in self.states:
            buffers = state
            for index in range(self.at, linear[-1] + 1):
                op = self.plan.ops[index]
                if op.kind == "linear":
                    on_linear(index, buffers[op.inputs[0]])
                if index != linear[-1]:
                    buffers = run(self.plan, weights, [op], buffers)

    @torch.no_grad()
    def advance(self, stop: int, weights: Weights) -> None:
        """Run every window up to the op `stop`."""
        needed = live(self.plan, stop)
        for i, state in enumerate(self.states):
            buffers = run(self.plan, weights, self.plan.ops[self.at : stop], state)
            self.states[i] = {name: value for name, value in buffers.items() if name in needed}
        self.at = stop
