"""What each format would cost at each weight matrix: one forward and one backward walk over the full-precision model.

Targets are drawn from the model's own distribution, so that squared gradients estimate its Gauss-Newton matrix
(`allocate.metrics.fisher`); the backward walk goes block by block, recomputing each from the buffers stored before
it, and measures a block's inputs and output gradients together. Costs are expected nats a token
(`allocate.metrics.output_error`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from anybit.allocate.metrics.fisher import OutputFisher
from anybit.allocate.metrics.output_error import lookup_error, output_error
from anybit.formats import TensorFormat
from anybit.models import Model, Plan, WeightStore
from anybit.models.interpreter import Buffers, run
from anybit.quantize.statistics import Statistics
from anybit.recipes.inputs import Inputs
from anybit.recipes.items import Item
from anybit.recipes.quantizer import Quantizer
from anybit.recipes.recipe import KEEP
from anybit.recipes.walk import Held, Walk, segments

TOKENS = 16384
"""Most tokens measured; the averages have settled long before."""

Progress = Callable[[float, str], None]


class Sensitivity:
    """Measures items one by one; `costs(item)` is asked for as soon as all of an item's ops are measured."""

    def __init__(self, model: Model, items: Sequence[Item], windows: Sequence[Tensor], seed: int) -> None:
        self.plan: Plan = model.plan
        self.weights: WeightStore = model.weights
        self.items = items
        self.ids = _first(windows, TOKENS)
        self.generator = torch.Generator().manual_seed(seed)
        self.inputs = Inputs(self.plan, items)
        self.fisher = {
            index: OutputFisher(self.plan.buffers[self.plan.ops[index].output], name=item.name)
            for item in items
            for index in item.ops
        }
        counts = torch.bincount(torch.cat(list(self.ids)), minlength=self.plan.vocab_size).double() + 0.5
        self.frequency = counts / counts.sum()

    def run(self, measured: Callable[[Item], None], progress: Progress) -> None:
        """Walk; `measured` is called with each item once its inputs and gradients are known, from the last to the
        first.
        """
        parts = segments(self.plan)
        held = Held(self.weights)
        walk = Walk(self.plan, self.ids)
        before: list[list[Buffers]] = []
        for number, (_, stop) in enumerate(parts[:-1]):
            before.append(walk.states.copy())
            walk.advance(stop, held)
            held.drop()
            progress(0.3 * (number + 1) / len(parts), "measuring the full-precision model")
        before.append(walk.states.copy())
        gradients: list[dict[str, Tensor]] = [{} for _ in self.ids]
        waiting = list(self.items)
        for number in reversed(range(len(parts))):
            start, stop = parts[number]
            for window, state in enumerate(before[number]):
                gradients[window] = self._back(start, stop, state, gradients[window], held)
            before.pop()
            held.drop()
            for item in [item for item in waiting if min(item.ops) >= start]:
                waiting.remove(item)
                measured(item)
            progress(0.3 + 0.7 * (len(parts) - number) / len(parts), "measuring the formats")

    def _back(
        self, start: int, stop: int, state: Buffers, gradient: dict[str, Tensor], weights: Held
    ) -> dict[str, Tensor]:
        """Gradients of the loss with respect to the buffers before op `start`, from those after op `stop`."""
        leaves = {name: value.detach().requires_grad_() for name, value in state.items() if value.is_floating_point()}
        buffers: Buffers = {**state, **leaves}
        with torch.enable_grad():
            for index in range(start, stop):
                op = self.plan.ops[index]
                if op.kind == "linear":
                    self.inputs(index, buffers[op.inputs[0]])
                buffers = run(self.plan, weights, [op], buffers)
                if index in self.fisher:
                    if op.kind == "embedding":
                        buffers[op.output] = buffers[op.output].detach().requires_grad_()
                    buffers[op.output].register_hook(self.fisher[index].add)
            if stop == len(self.plan.ops):
                logits = buffers["logits"]
                share = logits.detach().softmax(-1)
                targets = torch.multinomial(share, 1, generator=self.generator)[:, 0]
                functional.cross_entropy(logits, targets, reduction="sum").backward()
            else:
                outputs = [(buffers[name], g) for name, g in gradient.items() if buffers[name].requires_grad]
                torch.autograd.backward([o for o, _ in outputs], [g for _, g in outputs])
        return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    def costs(self, item: Item, choices: Sequence[str], quantizer: Quantizer) -> list[float]:
        """Expected loss increase in nats a token of the item in each format ("keep" costs nothing)."""
        stored = self.weights.get(item.name)
        assert isinstance(stored, Tensor), "preflight has refused quantized models"
        weight = stored.float()
        return [
            0.0 if choice == KEEP else self._cost(item, weight, TensorFormat.parse(choice), quantizer)
            for choice in choices
        ]

    def _cost(self, item: Item, weight: Tensor, fmt: TensorFormat, quantizer: Quantizer) -> float:
        stats = self.statistics(item)
        values = quantizer(item, weight, fmt, stats).qtensor.dequantize()
        total = 0.0
        fisher = torch.zeros(weight.shape[0], dtype=torch.float64)
        for index in item.ops:
            op = self.plan.ops[index]
            if op.kind == "embedding":
                factor = float(op.attrs.get("factor", 1.0))
                total += lookup_error(weight, values, self.frequency, self.fisher[index].second_moment * factor**2)
            else:
                first, last = op.weights[0].rows or (0, weight.shape[0])
                fisher[first:last] += self.fisher[index].second_moment
        if stats is not None:
            total += output_error(weight, values, stats.hessian, fisher)
        return total

    def statistics(self, item: Item) -> Statistics | None:
        """Statistics of the item's inputs as a linear layer; None for a table that is only looked up in."""
        return None if item.role == "embedding" else self.inputs.of(item)


def _first(windows: Sequence[Tensor], tokens: int) -> tuple[Tensor, ...]:
    """Windows, evenly spread, of at most that many tokens together; at least one."""
    total = sum(len(window) for window in windows)
    keep = max(1, min(len(windows), len(windows) * tokens // total))
    return tuple(windows[i * len(windows) // keep] for i in range(keep))
