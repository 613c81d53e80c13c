"""How heavy-tailed the activations of a model are: kurtosis, and the largest value against the median, for every kind of place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.models.interpreter import Setting, run
from anybit.models.loading import Model
from anybit.models.plan import WeightRef


@dataclass(frozen=True)
class Tail:
    """kurtosis: E[(x - mean)^4] / variance^2, 3 for a normal distribution.  max_to_median: max|x| / median|x|."""

    kurtosis: float
    max_to_median: float


def tail(x: Tensor) -> Tail:
    """Of all values of a tensor; computed in float64."""
    flat = x.detach().double().flatten()
    centred = flat - flat.mean()
    variance = centred.square().mean()
    return Tail((centred.pow(4).mean() / variance.square()).item(), (flat.abs().max() / flat.abs().median()).item())


class _Keys:
    """A cache that keeps nothing but remembers the keys it saw."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.seen[layer] = keys
        return keys, values


def activation_tails(model: Model, ids: Iterable[int]) -> dict[str, Tail]:
    """The tail of each linear's input by the name of its weight (with the rows, where several share a tensor), and of the keys of
    layer i, as attention sees them, under `keys.i`. ids: one sequence.
    """
    found: dict[str, Tail] = {}

    def see(ref: WeightRef, x: Tensor) -> None:
        found[ref.site] = tail(x)

    keys = _Keys()
    buffers = {"ids": torch.tensor(list(ids))}
    with torch.no_grad():
        run(model.plan, model.weights, model.plan.ops, buffers, Setting(on_linear=see), cache=keys)
    return found | {f"keys.{layer}": tail(value) for layer, value in keys.seen.items()}
