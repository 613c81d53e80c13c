"""Statistics of the inputs of weight matrices; matrices that see the same inputs share them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from anybit.models import Plan
from anybit.quantize.statistics import Statistics
from anybit.recipes.items import Item

Source = tuple[str, int]
"""A value in a plan: the buffer's name and the op that wrote it last."""


def sources(plan: Plan) -> dict[int, Source]:
    """Index of each linear op -> the value it reads."""
    writer: dict[str, int] = {}
    read: dict[int, Source] = {}
    for index, op in enumerate(plan.ops):
        if op.kind == "linear":
            read[index] = (op.inputs[0], writer.get(op.inputs[0], -1))
        writer[op.output] = index
    return read


class Inputs:
    """`Statistics` of each item; call it as a `Walk` hook. q, k and v projections, fed by one norm, share one
    Hessian.
    """

    def __init__(self, plan: Plan, items: Iterable[Item]) -> None:
        read = sources(plan)
        self._shared: dict[frozenset[Source], Statistics] = {}
        self._of_item: dict[str, frozenset[Source]] = {}
        self._leaders: dict[int, list[Statistics]] = {}
        seen: set[Source] = set()
        linear: dict[int, Source] = {}
        for item in items:
            ops = [index for index in item.ops if plan.ops[index].kind == "linear"]
            if not ops:
                continue
            key = frozenset(read[index] for index in ops)
            self._shared.setdefault(key, Statistics(item.shape[1], name=item.name))
            self._of_item[item.name] = key
            linear |= {index: read[index] for index in ops}
        for index, source in sorted(linear.items()):
            # Each value is added once, when the first op reads it, whichever items it serves.
            if source not in seen:
                seen.add(source)
                self._leaders[index] = [stats for key, stats in self._shared.items() if source in key]

    def __call__(self, op: int, x: Tensor) -> None:
        """Take in the input of a linear op."""
        for stats in self._leaders.get(op, ()):
            stats.add(x)

    def of(self, item: Item) -> Statistics:
        """The item's statistics; the same object for items that share them."""
        return self._shared[self._of_item[item.name]]
