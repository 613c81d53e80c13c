"""Running a recipe's transforms: measure what they need to see, and rewrite the model over its fold graph.

What a transform found (scales, orders) is journaled; applying it is quick and done again after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models import Model, online
from anybit.models.fold_graph import Site, looked_up, sites
from anybit.models.interpreter import as_float
from anybit.models.online import Affine, AtRunTime, Online, Residual, Split
from anybit.models.plan import Plan
from anybit.models.rewriting import Rewrite, rotate_residual
from anybit.quantize import rtn
from anybit.quantize import table as quantizers
from anybit.quantize.statistics import Statistics
from anybit.recipes import affine, items, keys
from anybit.recipes.inputs import Inputs, sources
from anybit.recipes.job import Job
from anybit.recipes.recipe import KEEP
from anybit.recipes.walk import Held, Walk, segments
from anybit.transforms import awq, block_affine, hadamard, order, residual, smooth, split, table
from anybit.transforms.hadamard import Rotation

Numbers = dict[str, Tensor]
"""What a transform found, by the number of the site."""

Say = Callable[[float, str], None]


class Pieces(Protocol):
    """What is asked of a journal."""

    def has(self, name: str) -> bool: ...

    def put(self, name: str, tensors: Mapping[str, Tensor], note: Any) -> None: ...

    def get(self, name: str) -> tuple[dict[str, Tensor], Any]: ...


@dataclass(frozen=True)
class _At:
    """A site whose inputs have been measured. weights: float32 [N_i, K] of its readers."""

    site: Site
    stats: Statistics
    weights: list[Tensor]
    formats: list[str]

    @property
    def index(self) -> Tensor:
        """[units, members] columns of the readers' inputs; the same for all of them."""
        return self.site.read[0].index

    def of_units(self, columns: Tensor) -> Tensor:
        """[units] mean over the members of something known of each column."""
        return columns[self.index].mean(1)


def transformed(job: Job, pieces: Pieces, say: Say) -> Job:
    """The job with its model rewritten as the recipe's transforms say, and what they leave to run time.

    Raises RecipeError for a transform that finds nothing to do in the model.
    """
    steps = job.recipe.steps
    for number, step in enumerate(steps):
        transform = table.get(step.name)
        options = transform.parse(step.options)

        def told(share: float, what: str, number: int = number) -> None:
            say((number + share) / len(steps), what)

        told(0.0, f"transform {step.name}")
        found: Numbers = {}
        if transform.needs == "inputs":
            name = f"transform:{number}:{step.name}"
            if not pieces.has(name):
                measure = _learned if step.name == "block_affine" else _measured
                pieces.put(name, measure(job, step.name, options, told, pieces), {})
            found = pieces.get(name)[0]
        job = _applied(job, step.name, options, found)
    return job


def _applied(job: Job, name: str, options: Any, found: Numbers) -> Job:
    model = job.model
    rewrite = Rewrite(model.weights)
    left: list[AtRunTime] = []
    here = sites(model.plan)
    if name in ("split", "residual"):
        left += _columns(model, rewrite, found, name)
    elif name in ("smooth", "awq"):
        for key, scales in found.items():
            rewrite.scale(here[int(key)], 1 / scales, snug=True)
    elif name == "permute":
        for key, wanted in found.items():
            rewrite.permute(here[int(key)], wanted)
    elif name == "sort_keys":
        left += keys.sorted_keys(model, rewrite, options)
    elif name == "block_affine":
        left += _affine(job, rewrite, options, found)
    elif name == "hadamard":
        left += _hadamard(model, rewrite, options)
    else:
        left += _rotate_inputs(model, rewrite, options)
    if not rewrite.steps and not left and name not in ("split", "residual"):  # a model may have no outliers
        raise RecipeError(f"{model.path}: the transform {name} finds nothing that it could change")
    changed = replace(model, weights=rewrite.store(), plan=online.insert(model.plan, left))
    changed.weights.copies |= online.copies(left)
    now = tuple(items.quantizable(changed))
    accounting = items.account(changed, now, job.recipe.static is not None)
    return replace(job, model=changed, items=now, accounting=accounting, online=(*job.online, *left))


def _hadamard(model: Model, rewrite: Rewrite, options: hadamard.Options) -> list[Online]:
    plan, left = model.plan, []
    here = sites(plan)
    if options.values:
        for site in here:
            if site.kind == "vo":
                rewrite.rotate(site, Rotation(hadamard.block_size(site.units), options.seed + 1).matrix(site.units))
    if options.down:
        names: dict[int, list[str]] = {}
        for site in here:
            if site.kind == "ud":
                part = site.read[0]
                block = options.block or hadamard.block_size(site.units)
                rewrite.turn(part.name, 1, _rotation(block, site.units, options.seed + 2), part.rows)
                names.setdefault(block, []).append(part.name)
        left += [Online(Rotation(block, options.seed + 2), before=tuple(at)) for block, at in names.items()]
    if options.residual:
        width = next(site.units for site in here if site.kind == "norm")
        block = options.block or hadamard.block_size(width)
        left += rotate_residual(plan, rewrite, _rotation(block, width, options.seed))
    return left


def _columns(model: Model, rewrite: Rewrite, found: Numbers, name: str) -> list[AtRunTime]:
    """The linears that read a value with outlier channels, by the first of them in the plan."""
    left: list[AtRunTime] = []
    for key, columns in found.items():
        names = dict.fromkeys(model.plan.ops[op].weights[0].name for op in _sharing(model.plan, int(key)))
        if name == "residual":
            left.append(Residual(tuple(columns.tolist()), tuple(names)))
            continue
        for each in names:
            rewrite.split(each, columns)
        left.append(Split(tuple(columns.tolist()), tuple(names)))
    return left


def _sharing(plan: Plan, op: int) -> list[int]:
    """The linears that read the value that linear `op` reads."""
    read = sources(plan)
    return [other for other, source in read.items() if source == read[op]]


def _rotation(block: int, width: int, seed: int) -> Rotation:
    if width % block:
        raise RecipeError(f"a Hadamard block of {block} does not divide the {width} channels there")
    return Rotation(block, seed)


def _rotate_inputs(model: Model, rewrite: Rewrite, options: hadamard.InputOptions) -> list[Online]:
    """Every linear but a head that is the embedding too."""
    seed = None if options.seed < 0 else options.seed
    tables = looked_up(model.plan)
    names: dict[int, dict[str, None]] = {}
    for op in model.plan.ops:
        if op.kind != "linear" or op.weights[0].name in tables:
            continue
        width = model.plan.buffers[op.inputs[0]]
        block = options.block
        while width % block:
            block //= 2
        rewrite.turn(op.weights[0].name, 1, Rotation(block, seed), op.weights[0].rows)
        names.setdefault(block, {})[op.weights[0].name] = None
    return [
        Online(Rotation(block, seed), before=tuple(at)) for block, at in names.items() if block > 1 or seed is not None
    ]


def _affine(job: Job, rewrite: Rewrite, options: block_affine.Options, found: Numbers) -> list[Affine]:
    left = affine.places(job.model.plan, _specs(job), options)
    for place in left:
        turn = affine.affine_of(place, found)
        for name in place.before:
            rewrite.turn(name, 1, turn.for_weights())
        for name, value in place.tensors(turn).items():
            rewrite.add(name, value)
    return left


def _learned(job: Job, name: str, options: block_affine.Options, say: Say, pieces: Pieces) -> Numbers:
    """The tensors of block-affine transforms; each block's are journaled.

    "auto" learns from either start and keeps what leaves the lesser divergence: neither the squared errors of blocks nor the divergence
    before learning tells which start learns better (benchmarks/NOTES-quantization.md, 2026-11-28).
    """
    assert job.windows is not None, "transforms that look at inputs have been given text"
    model, formats, ids = job.model, _specs(job), job.windows.ids
    starts = affine.EITHER if options.start == "auto" else (options.start,)
    nearest = quantizers.get(job.recipe.method).needs == "weights"
    tried: list[tuple[float, Numbers]] = []
    for number, start in enumerate(starts):
        piece = f"{name}:{start}"

        def done(block: int, piece: str = piece) -> Numbers | None:
            return pieces.get(f"{piece}:block {block}")[0] if pieces.has(f"{piece}:block {block}") else None

        def keep(block: int, found: affine.Found, note: Mapping[str, float], piece: str = piece) -> None:
            pieces.put(f"{piece}:block {block}", found, note)

        def told(share: float, what: str, number: int = number) -> None:
            say((number + share) / len(starts), what)

        found = affine.learned(model, formats, ids, replace(options, start=start), done, keep, told)
        left = affine.far(model, formats, ids, options, found, nearest) if len(starts) > 1 else 0.0
        tried.append((left, found))
    return min(tried, key=lambda each: each[0])[1]


def _measured(job: Job, name: str, options: Any, say: Say, pieces: Pieces) -> Numbers:
    """Walk the calibration text through the model as it is by now; each site is asked for as soon as its inputs are known."""
    assert job.windows is not None, "transforms that look at inputs have been given text"
    plan, weights = job.model.plan, job.model.weights
    by_op = {index: item for item in job.items for index in item.ops if plan.ops[index].kind == "linear"}
    here = [(number, site) for number, site in enumerate(sites(plan)) if _wanted(site, options)]
    stream = _Stream()
    found: Numbers = {}
    tables = looked_up(plan)
    held = Held(weights)
    walk = Walk(plan, job.windows.ids)
    parts = segments(plan)
    for part, (start, stop) in enumerate(parts):
        inside = [(number, site) for number, site in here if site.readers and start <= site.readers[0] < stop]
        if name in ("split", "residual"):
            wanted = {item.name: item for op, item in by_op.items() if start <= op < stop and item.name not in tables}
            inputs = Inputs(plan, wanted.values())
            walk.visit(stop, held, inputs)
            for item in wanted.values():
                if _sharing(plan, item.ops[0])[0] == item.ops[0]:
                    find = split.outlier_columns if name == "split" else residual.residual_columns
                    outliers = find(inputs.of(item).largest, options)
                    if len(outliers):
                        found[str(item.ops[0])] = outliers
        elif inside:
            wanted = {by_op[r].name: by_op[r] for _, site in inside for r in site.readers}
            inputs = Inputs(plan, wanted.values())
            walk.visit(stop, held, inputs)
            for number, site in inside:
                matrices = [as_float(held.resolve(plan.ops[r].weights[0])) for r in site.readers]
                formats = [_spec(job, by_op[r].name) for r in site.readers]
                at = _At(site, inputs.of(by_op[site.readers[0]]), matrices, formats)
                result = _find(name, options, at, stream)
                if result is not None:
                    found[str(number)] = result
        held.drop()
        if stop < len(plan.ops):
            walk.advance(stop, held)
            held.drop()
        say((part + 1) / len(parts), f"{name}: measured part {part + 1} of {len(parts)}")
    of_stream = next((number for number, site in enumerate(sites(plan)) if site.kind == "residual"), None)
    if name == "permute" and options.residual and of_stream is not None and stream.total is not None:
        found[str(of_stream)] = _order(stream.total, stream.spec, options)
    return found


class _Stream:
    """The mean square of what the norms make of each channel of the residual stream, every reader counted alike."""

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.spec = KEEP

    def add(self, importance: Tensor, spec: str) -> None:
        self.spec = spec if self.spec == KEEP else self.spec
        share = importance / importance.mean().clamp(min=1e-30)
        self.total = share if self.total is None else self.total + share


def _wanted(site: Site, options: Any) -> bool:
    if isinstance(options, (split.Options, residual.Options)):
        return False
    if site.kind == "norm":
        return bool(getattr(options, "norm", True))
    return bool({"vo": options.values, "ud": options.down}.get(site.kind, False))


def _find(name: str, options: Any, at: _At, stream: _Stream) -> Tensor | None:
    """Scales that the weights are multiplied by, or an order of channels."""
    if name == "smooth":
        largest = at.stats.largest[at.index].amax(1)
        return smooth.smoothing_scales(largest, _by_members(at), options.alpha)
    if name == "permute":
        importance = at.of_units(at.stats.second_moment.float())
        if at.site.kind == "norm":
            stream.add(importance, at.formats[0])
            return None
        return _order(importance, at.formats[0], options)
    rounded = [(w, spec) for w, spec in zip(at.weights, at.formats, strict=True) if spec != KEEP]
    if not rounded:
        return None
    # One format for all readers: they share a role.
    fmt = TensorFormat.parse(rounded[0][1])

    def rounding(weight: Tensor) -> Tensor:
        return rtn.quantize(weight, fmt, None, rtn.Options("mse")).qtensor.dequantize()

    mean = at.of_units(at.stats.mean_absolute)
    return awq.search(mean, at.index, [w for w, _ in rounded], at.stats.hessian, rounding, options.steps).scales


def _order(importance: Tensor, spec: str, options: order.Options) -> Tensor:
    wide = 0 if spec == KEEP else TensorFormat.parse(spec).block[1]
    if options.order == "sorted" or wide == 0:
        return order.descending(importance)
    return order.dealt(importance, max(1, -(-len(importance) // wide)))


def _by_members(at: _At) -> list[Tensor]:
    """The readers' weights with one column a unit and the members one above the other."""
    return [torch.cat([w[:, at.index[:, member]] for member in range(at.index.shape[1])]) for w in at.weights]


def _spec(job: Job, name: str) -> str:
    """The format that a transform expects of a matrix: a budget has not chosen yet, so the choice nearest to its bits."""
    spec = job.formats[name]
    if spec is not None:
        return spec
    bits = job.recipe.bits
    assert bits is not None, "only a budget leaves formats open"
    choices = [choice for choice in job.recipe.choices if choice != KEEP]
    return min(choices, key=lambda choice: abs(TensorFormat.parse(choice).nbytes((1024, 1024)) * 8 / 2**20 - bits))


def _specs(job: Job) -> dict[str, str]:
    return {item.name: _spec(job, item.name) for item in job.items}
