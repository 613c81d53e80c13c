"""Which tensors of a model a recipe quantizes, what part they play, and how many bytes everything takes."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models import Model
from anybit.models.online import BESIDE
from anybit.recipes.recipe import DEFAULT_EMBEDDINGS, KEEP, Recipe

Role = Literal["linear", "embedding", "lm_head", "tied"]


@dataclass(frozen=True)
class Item:
    """A weight matrix that can be quantized. `tied`: the embedding that is the output matrix too. ops: the plan's
    ops reading it.
    """

    name: str
    shape: tuple[int, int]
    role: Role
    ops: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Elements of the matrix."""
        return prod(self.shape)


def quantizable(model: Model) -> list[Item]:
    """Every matrix that a linear or embedding op of the model's plan reads, in order of first use."""
    plan = model.plan
    looked_up = {op.weights[0].name for op in plan.ops if op.kind == "embedding"}
    last = max((end for _, end in plan.blocks), default=0)
    readers: dict[str, list[int]] = {}
    for index, op in enumerate(plan.ops):
        if op.kind in ("linear", "embedding") and not op.weights[0].name.endswith(BESIDE):
            readers.setdefault(op.weights[0].name, []).append(index)
    items = []
    for name, ops in readers.items():
        shape = model.weights.shape(name)
        linear = [index for index in ops if plan.ops[index].kind == "linear"]
        role: Role
        if name in looked_up:
            role = "tied" if linear else "embedding"
        else:
            role = "lm_head" if all(index >= last for index in linear) else "linear"
        items.append(Item(name, (shape[0], prod(shape[1:])), role, tuple(ops)))
    return items


def fixed_formats(recipe: Recipe, items: Sequence[Item]) -> dict[str, str | None]:
    """Item name -> format spec, "keep", or None where the budget decides.

    Raises RecipeError where an override matches no tensor.
    """
    for override in recipe.overrides:
        if not any(fnmatch.fnmatchcase(item.name, override.pattern) for item in items):
            raise RecipeError(
                f"the override {override.pattern!r} matches none of the model's {len(items)} weight matrices"
            )
    chosen: dict[str, str | None] = {}
    for item in items:
        named = {
            "linear": recipe.weights,
            "embedding": recipe.embeddings,
            "lm_head": recipe.lm_head,
            "tied": recipe.embeddings or recipe.lm_head,
        }[item.role]
        if named is None and recipe.uniform:
            named = DEFAULT_EMBEDDINGS
        chosen[item.name] = recipe.override(item.name) or named
    return chosen


@dataclass(frozen=True)
class Accounting:
    """What is stored, as docs/architecture.md counts it. parameters: of all tensors.  other_bytes: of those that
    are no item.
    """

    parameters: int
    other_bytes: int
    source_bytes: int
    stored: Mapping[str, int]
    """Bytes of each item as the source stores it."""
    scale_bytes: int = 0
    """Of the static scale beside every quantized matrix that is multiplied with."""

    def bits_per_weight(self, item_bytes: float) -> float:
        """Bits a weight of the whole model when its items take `item_bytes`."""
        return 8 * (item_bytes + self.other_bytes) / self.parameters

    def item_budget(self, bits: float) -> float:
        """Bytes the items may take together so that the whole model keeps `bits` a weight."""
        return float(int(bits * self.parameters / 8) - self.other_bytes)


def multiplied(item: Item) -> bool:
    """Whether something is multiplied with the matrix, not only looked up in it."""
    return item.role != "embedding"


def account(model: Model, items: Sequence[Item], static: bool = False) -> Accounting:
    """Count parameters and bytes of every tensor the model's plan reads; a tied matrix once. static: whether activations will be."""
    names = {item.name for item in items}
    parameters = other = 0
    stored: dict[str, int] = {}
    for name in model.plan.weight_names():
        # Columns split off a matrix, or copied from it, are counted in it; what transforms bring along is bytes without parameters.
        parameters += 0 if name.endswith(BESIDE) else prod(model.weights.shape(name))
        nbytes = model.weights.nbytes(name)
        if name in names:
            stored[name] = nbytes
        else:
            other += nbytes
    return Accounting(parameters, other, other + sum(stored.values()), stored, 4 if static else 0)


def size(item: Item, spec: str, accounting: Accounting) -> int:
    """Bytes of the item in that format with a static scale where there is one, or as the source stores it for "keep"."""
    if spec == KEEP:
        return accounting.stored[item.name]
    return TensorFormat.parse(spec).nbytes(item.shape) + (accounting.scale_bytes if multiplied(item) else 0)


def short_groups(item: Item, spec: str) -> str | None:
    """A sentence where the block of `spec` does not divide the item's columns, else None."""
    if spec == KEEP:
        return None
    width = TensorFormat.parse(spec).block[1]
    columns = item.shape[1]
    if width == 0 or columns % width == 0:
        return None
    return (
        f"{item.name}: {columns} columns in groups of {width}: the last group of {columns % width} is short "
        f"({ceil(columns / width)} groups)"
    )
