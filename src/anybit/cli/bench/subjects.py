"""What a model benchmark runs: a checkpoint, or a shape with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anybit.cli.bench import shapes
from anybit.cli.bench.rounds import Progress, silent

if TYPE_CHECKING:
    from anybit.models.plan import Plan


@dataclass(frozen=True)
class Subject:
    """A model to measure. bytes: of all stored tensors; bytes_per_token: of those that a decoded token reads (not the rows of an
    untied embedding that it does not look up)."""

    name: str
    config: Mapping[str, Any]
    plan: Plan
    weights: Any
    format: str
    parameters: int
    bytes: int
    bytes_per_token: int


def read_per_token(plan: Plan, sizes: Mapping[str, int]) -> int:
    """Stored bytes that every decoded token reads: all tensors but embeddings that are only looked up."""
    looked_up = {op.weights[0].name for op in plan.ops if op.kind == "embedding"}
    multiplied = {ref.name for op in plan.ops if op.kind != "embedding" for ref in op.weights}
    return sum(size for name, size in sizes.items() if name in multiplied or name not in looked_up)


def synthetic(name: str, fmt: str, head: str | None = None, progress: Progress = silent) -> Subject:
    """Random weights of a shape of `shapes`; `head` is the format of embedding and output matrix. Errors name unknown ones."""
    from anybit import models
    from anybit.cli.bench.model import RandomWeights
    from anybit.formats import TensorFormat

    config = shapes.config(name)
    inner = TensorFormat.parse(fmt)
    outer = TensorFormat.parse(head) if head else inner
    weights = RandomWeights(config, inner, outer)
    names = weights.names()
    for index, tensor in enumerate(names):
        progress(tensor, index, len(names))
        weights.get(tensor)
    plan = models.lower(config)
    sizes = {tensor: int(weights.get(tensor).nbytes) for tensor in names}
    label = str(inner) if outer == inner else f"{inner}, head {outer}"
    return Subject(
        f"synthetic {name}",
        config,
        plan,
        weights,
        label,
        shapes.parameters(config),
        sum(sizes.values()),
        read_per_token(plan, sizes),
    )


def real(folder: Path) -> Subject:
    """A checkpoint. Its format is named after the linear layers where they all have the same."""
    from anybit import models

    model = models.load(folder)
    store = model.weights
    sizes = {tensor: int(store.nbytes(tensor)) for tensor in model.plan.weight_names()}
    linear = {
        str(store.dtype(op.weights[0].name)).removeprefix("torch.") for op in model.plan.ops if op.kind == "linear"
    }
    return Subject(
        folder.name,
        model.config,
        model.plan,
        store,
        linear.pop() if len(linear) == 1 else "mixed",
        model.parameters,
        model.nbytes,
        read_per_token(model.plan, sizes),
    )
