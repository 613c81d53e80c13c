"""A block of a plan, or all of it, as the reconstruction trainer sees it: weights in, outputs out, on the calibration windows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from anybit.models import Overlay, Plan
from anybit.models.interpreter import Buffers, Multiply, Setting, run
from anybit.models.weights import Weights
from anybit.quantize.rounded_inputs import RoundInputs
from anybit.recipes.walk import Segment, live


class Block:
    """forward, targets: as `quantize.reconstruct` asks for them.

    states: the buffers of every window before the block, as the quantized part before makes them.  wanted: those behind it in the float
    model; none where `targets` is not asked.  weights: what the block reads beside the weights given to `forward`.  setting: how its
    operators run.
    """

    def __init__(
        self,
        plan: Plan,
        part: Segment,
        states: Sequence[Buffers],
        wanted: Sequence[Buffers],
        weights: Weights,
        setting: Setting | None = None,
    ) -> None:
        self.setting = setting
        self.plan, self.part, self.states, self.wanted, self.weights = plan, part, states, wanted, weights
        # What later operators read: the residual stream, and nothing else in a decoder.  Behind the last one there are the logits.
        self.outputs = sorted(live(plan, part[1]) - {"ids"}) or [plan.ops[-1].output]

    def forward(self, weights: Mapping[str, Tensor], windows: Sequence[int]) -> Tensor:
        """[tokens of the windows, widths of the outputs side by side]."""
        start, stop = self.part
        overlay = Overlay(self.weights, weights)
        parts = []
        for group in self._alike(windows):
            buffers = {name: torch.stack([self.states[w][name] for w in group]) for name in self.states[group[0]]}
            done = run(self.plan, overlay, self.plan.ops[start:stop], buffers, self.setting)
            parts.append(self._flat([done[name] for name in self.outputs]))
        return torch.cat(parts)

    def targets(self, windows: Sequence[int]) -> Tensor:
        """Of the float model, in the same shape."""
        parts = []
        for group in self._alike(windows):
            parts.append(self._flat([torch.stack([self.wanted[w][name] for w in group]) for name in self.outputs]))
        return torch.cat(parts)

    def _alike(self, windows: Sequence[int]) -> list[list[int]]:
        """Windows of one length together: they run as one batch."""
        lengths: dict[int, list[int]] = {}
        for window in windows:
            lengths.setdefault(next(iter(self.states[window].values())).shape[0], []).append(window)
        return list(lengths.values())

    @staticmethod
    def _flat(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([value.reshape(-1, value.shape[-1]) for value in values], 1)


def rounding_of(inputs: RoundInputs, names: Collection[str]) -> Multiply:
    """Products of linears, the inputs of those with these weights rounded."""

    def multiply(site: str, x: Tensor, w: Tensor) -> Tensor:
        return (inputs(x) if site.partition("[")[0] in names else x) @ w.T

    return multiply


def rounding(inputs: RoundInputs | None, names: Collection[str]) -> Setting | None:
    """How operators run with `rounding_of`; None where inputs are exact."""
    return None if inputs is None else Setting(multiply=rounding_of(inputs, names), attention=False)
