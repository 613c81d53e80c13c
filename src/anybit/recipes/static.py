"""Static scales of activations: how large the inputs of every quantized matrix become on the calibration text, in the finished model.

They are measured behind the quantized weights, with activations as they are, so a scale fits what the checkpoint will round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch

from anybit.models import Overlay
from anybit.models.weights import Weight
from anybit.quantize.magnitudes import Magnitudes
from anybit.recipes.items import Item, multiplied
from anybit.recipes.job import Job
from anybit.recipes.journal import Journal
from anybit.recipes.recipe import KEEP
from anybit.recipes.walk import Held, Walk, segments

PIECE = "input scales"
"""Of the journal."""


def input_scales(
    job: Job, formats: Mapping[str, str], pages: Journal, say: Callable[[float, str], None]
) -> dict[str, float]:
    """Weight name -> the scale of what it multiplies, for every quantized matrix; none where the recipe's activations are not static.

    Needs all quantized weights in the journal, which keeps the result. Raises RecipeError naming the layer whose inputs are NaN or
    infinite.
    """
    fmt = job.recipe.static
    if fmt is None:
        return {}
    if not pages.has(PIECE):
        wanted = [item for item in job.items if multiplied(item) and formats[item.name] != KEEP]
        found = _measured(job, wanted, formats, pages, say)
        scales = {name: torch.tensor(each.scale(fmt)) for name, each in found.items()}
        pages.put(PIECE, scales, {"format": str(fmt)})
    return {name: float(scale) for name, scale in pages.get(PIECE)[0].items()}


def _measured(
    job: Job, wanted: list[Item], formats: Mapping[str, str], pages: Journal, say: Callable[[float, str], None]
) -> dict[str, Magnitudes]:
    """What each matrix meets."""
    assert job.windows is not None, "static activations have been given text"
    plan = job.model.plan
    found = {item.name: Magnitudes(job.recipe.activation_rule, name=item.name) for item in wanted}
    of_op = {op: found[item.name] for item in wanted for op in item.ops if plan.ops[op].kind == "linear"}
    held = Held(Overlay(job.model.weights, _Finished(formats, pages)))
    walk = Walk(plan, job.windows.ids)
    parts = segments(plan)
    for number, (_, stop) in enumerate(parts):
        say(number / len(parts), f"measuring activations of part {number + 1} of {len(parts)}")
        walk.visit(stop, held, lambda op, x: of_op[op].add(x) if op in of_op else None)
        if stop < len(plan.ops):
            walk.advance(stop, held)
        held.drop()
    return found


class _Finished(Mapping[str, Weight]):
    """The quantized weights of a journal, read when they are asked for."""

    def __init__(self, formats: Mapping[str, str], pages: Journal) -> None:
        self._names = [name for name, spec in formats.items() if spec != KEEP]
        self._pages = pages

    def __getitem__(self, name: str) -> Weight:
        if name not in self._names:
            raise KeyError(name)
        return self._pages.get_weight(name)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
