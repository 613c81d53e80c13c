"""Learning the block-affine transforms of a model, a block at a time, on the calibration windows (`quantize.batquant`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor
from anybit.models.evaluation import divergence
from anybit.models.fold_graph import looked_up
from anybit.models.interpreter import Setting
from anybit.models.online import Affine, insert
from anybit.models.plan import Plan
from anybit.quantize import batquant
from anybit.quantize.learned import rounded
from anybit.quantize.reconstruct import split
from anybit.recipes.inputs import sources
from anybit.recipes.recipe import KEEP
from anybit.recipes.reconstruction import Block, rounding_of
from anybit.recipes.walk import Held, Walk
from anybit.tensors import quantize
from anybit.transforms.block_affine import BlockAffine, Options

EITHER = ("hadamard", "identity")
"""The starts of learning that "auto" tries."""

Found = Mapping[str, Tensor]
"""The tensors of transforms by their names in a checkpoint."""


def places(
    plan: Plan, formats: Mapping[str, str], options: Options, part: tuple[int, int] | None = None
) -> list[Affine]:
    """A transform for every value that linears of the blocks read, or of the operators `part`; none where one of these is kept."""
    read, tables = sources(plan), looked_up(plan)
    first, last = part or (plan.blocks[0][0], plan.blocks[-1][1])
    names: dict[tuple[str, int], dict[str, None]] = {}
    for op, source in read.items():
        if first <= op < last:
            names.setdefault(source, {})[plan.ops[op].weights[0].name] = None
    return [
        Affine(options.block, options.shared, options.clip, tuple(each))
        for each in names.values()
        if not any(name in tables or formats.get(name, KEEP) == KEEP for name in each)
    ]


def far(
    model: Model,
    formats: Mapping[str, str],
    ids: Sequence[Tensor],
    options: Options,
    found: Found,
    nearest: bool,
) -> float:
    """KL divergence of the predictions, nats a token, that these transforms leave on the held-out windows, activations clipped and rounded.

    nearest: weights are rounded too, to the nearest; else they are exact, for methods that correct their errors by the inputs: GPTQ's codes
    leave next to nothing beside the activations, where nearest ones would decide (benchmarks/NOTES-quantization.md, 2026-11-28).
    """
    here = places(model.plan, formats, options)
    turns = {name: affine_of(place, found) for place in here for name in place.before}
    act = TensorFormat.parse(options.act)

    def multiply(site: str, x: Tensor, w: Tensor) -> Tensor:
        name = site.split("[")[0]
        if name not in turns:
            return x @ w.T
        turn = turns[name]
        turned = turn.for_weights().forward(w)
        turned = quantize(turned, TensorFormat.parse(formats[name])).dequantize() if nearest else turned
        return rounded(turn.clip(turn.forward(x)), act) @ turned.T

    windows = [ids[number].tolist() for number in split(len(ids), options.held_out)[1]]
    exact = TorchExecutor(model.plan, model.weights, keep=False)
    return divergence(TorchExecutor(model.plan, model.weights, keep=False, multiply=multiply), exact, windows).kl


def learned(
    model: Model,
    formats: Mapping[str, str],
    ids: Sequence[Tensor],
    options: Options,
    done: Callable[[int], Found | None],
    keep: Callable[[int, Found, Mapping[str, float]], None],
    say: Callable[[float, str], None],
) -> dict[str, Tensor]:
    """The tensors of every transform of the model's blocks.

    formats: of its matrices.  done(i): what an interrupted run found for block i; keep(i, found, note): called with what was found.
    """
    plan = model.plan
    held, walk = Held(model.weights), Walk(plan, ids)
    walk.advance(plan.blocks[0][0], held)
    held.drop()
    found: dict[str, Tensor] = {}
    for number, part in enumerate(plan.blocks):
        before = list(walk.states)
        walk.advance(part[1], held)
        tensors = done(number)
        if tensors is None:
            tensors, note = _block(model, number, formats, held, before, walk, options)
            keep(number, tensors, note)
        found |= tensors
        held.drop()
        say((number + 1) / len(plan.blocks), f"block_affine: learned block {number + 1} of {len(plan.blocks)}")
    return found


def _block(
    model: Model,
    number: int,
    formats: Mapping[str, str],
    held: Held,
    before: Sequence[dict[str, Tensor]],
    walk: Walk,
    options: Options,
) -> tuple[Found, dict[str, float]]:
    at = {each.before[0]: each for each in places(model.plan, formats, options, model.plan.blocks[number])}
    if not at:
        return {}, {}
    plan = insert(model.plan, list(at.values()))
    act = TensorFormat.parse(options.act)
    inside = {op.weights[0].name for op in plan.ops[slice(*plan.blocks[number])] if op.kind == "linear"}
    turned = inside & {name for each in at.values() for name in each.before}
    setting = Setting(act=act, multiply=rounding_of(lambda x: rounded(x, act), turned), attention=False)
    block = Block(plan, plan.blocks[number], before, walk.states, held, setting)

    def forward(matrices: Mapping[str, Tensor], transforms: batquant.Transforms, windows: Sequence[int]) -> Tensor:
        given = dict(matrices)
        for key, affine in transforms.items():
            given |= at[key].tensors(affine)
        return block.forward(given, windows)

    groups = {
        key: {name: (_whole(model, name), TensorFormat.parse(formats[name])) for name in each.before}
        for key, each in at.items()
    }
    done = batquant.learn(groups, forward, block.targets, len(before), options, f"layer {number}")
    found = {name: value for key, affine in done.transforms.items() for name, value in at[key].tensors(affine).items()}
    largest = max(float(affine.conditions().max()) for affine in done.transforms.values())
    return found, {"block_error_before": done.before, "block_error_after": done.after, "largest_condition": largest}


def _whole(model: Model, name: str) -> Tensor:
    value = model.weights.get(name)
    assert isinstance(value, Tensor), "quantized models are refused before"
    return value.float()


def affine_of(place: Affine, found: Found) -> BlockAffine:
    """The transform of a place from the tensors found."""
    return BlockAffine(*(found[name] for name in place.names()))
