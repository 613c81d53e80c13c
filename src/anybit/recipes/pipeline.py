"""Running a recipe on a model: load, measure, allocate, quantize, write; killed at any moment, it goes on where it was.

Every finished piece (a measured matrix, the allocation, a quantized matrix) goes to the journal first. The
checkpoint is written to another name and renamed when it is whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from anybit.allocate import solve
from anybit.errors import AnybitError, RecipeError
from anybit.formats import TensorFormat
from anybit.models import Overlay
from anybit.models.weights import Weight
from anybit.quantize import check as sound
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics
from anybit.recipes import estimates, items, journal, output, static
from anybit.recipes.inputs import Inputs
from anybit.recipes.items import Item
from anybit.recipes.job import Job, check
from anybit.recipes.journal import Journal
from anybit.recipes.quantizer import Quantizer
from anybit.recipes.recipe import KEEP, Recipe
from anybit.recipes.reconstruction import Block, rounding
from anybit.recipes.sensitivity import Sensitivity
from anybit.recipes.threads import each_on_a_thread
from anybit.recipes.transforming import transformed
from anybit.recipes.walk import Held, Walk, segments
from anybit.tensors import QTensor

_TRANSFORM, _MEASURE, _FINISH, _SCALE, _WRITE = 0.02, 0.6, 0.75, 0.94, 0.96
"""Shares of the whole job after which transforms, measuring for a budget, the blocks, where the whole is learned after them, quantizing
and measuring static activations are done."""
_WHOLE = "whole"
"""The piece of the journal with what was learned of all blocks together."""


class Progress(Protocol):
    """Called often with the finished share of the whole job (0 to 1) and what is being done."""

    def __call__(self, fraction: float, message: str) -> None: ...


@dataclass(frozen=True)
class Result:
    """What came of a run. bits_per_weight and bytes as docs/architecture.md counts them.

    formats: weight matrix -> its format spec or "keep".  reports: weight matrix -> what its quantizer reported.
    expected_loss: nats a token the allocation expects to lose; None for a uniform recipe.
    resumed: pieces an interrupted run had finished.
    """

    out: Path
    parameters: int
    bytes: int
    bits_per_weight: float
    formats: Mapping[str, str]
    reports: Mapping[str, Mapping[str, Any]]
    expected_loss: float | None
    resumed: int


def run(
    model_path: Path | str,
    recipe: Recipe,
    out: Path | str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Quantize the model as the recipe says and write the checkpoint to `out`.

    The same call again after an interruption, SIGKILL included, ends in the same bytes; `overwrite` starts anew.
    Raises AnybitError with one sentence where it cannot be done; then nothing is left at `out`.
    """
    job = check(model_path, recipe, out, overwrite=overwrite)
    estimates.fits(job)
    say = _Scaled(progress)
    say(0.0, "checking the model's files")
    mark = journal.fingerprint(
        job.model.path,
        recipe.fingerprint(),
        job.windows.text if job.windows else None,
        torch.get_num_threads() if job.windows else None,
    )
    with Journal(job.out, mark, restart=overwrite) as pages:
        if job.out.exists() and not overwrite and not output.written(job.out, mark):
            raise RecipeError(f"the output {job.out} exists; choose another folder or give --overwrite")
        resumed = pages.count()
        try:
            job = transformed(job, pages, say.stage(0.0, _TRANSFORM))
            formats, expected = _formats(job, pages, say)
            if Quantizer(recipe.method, recipe.options).method.needs != "weights":
                reports = _calibrated(job, formats, pages, say)
            else:
                reports = _streamed(job, formats, pages, say)
            scales = static.input_scales(job, formats, pages, say.stage(_SCALE, _WRITE))
            say(_WRITE, "writing the checkpoint")
            if not job.out.exists() or overwrite:
                output.write(job, formats, expected, scales, pages, mark, overwrite)
        except journal.Unwritable:
            raise
        except AnybitError:
            # The input is at fault: starting again would end the same, so nothing is left behind.
            pages.remove()
            raise
        pages.remove()
    say(1.0, "done")
    stored = (
        sum(items.size(item, formats[item.name], job.accounting) for item in job.items) + job.accounting.other_bytes
    )
    bits = 8 * stored / job.accounting.parameters
    return Result(job.out, job.accounting.parameters, stored, bits, formats, reports, expected, resumed)


class _Scaled:
    """Progress of a stage as a share of the whole."""

    def __init__(self, inner: Progress | None, low: float = 0.0, high: float = 1.0) -> None:
        self._inner, self._low, self._high = inner, low, high

    def __call__(self, fraction: float, message: str) -> None:
        if self._inner is not None:
            self._inner(self._low + (self._high - self._low) * fraction, message)

    def stage(self, low: float, high: float) -> _Scaled:
        """The part of the whole job between two shares."""
        return _Scaled(self._inner, low, high)


def _formats(job: Job, pages: Journal, say: _Scaled) -> tuple[dict[str, str], float | None]:
    """The format of every item; for a budget by exact allocation at the least expected loss."""
    chosen = {name: spec for name, spec in job.formats.items() if spec is not None}
    if not job.free:
        return chosen, None
    if not pages.has("allocation"):
        costs = _measure(job, pages, say.stage(_TRANSFORM, _MEASURE))
        sizes = np.array(
            [[items.size(item, choice, job.accounting) for choice in job.recipe.choices] for item in job.free]
        )
        picked = solve(costs, sizes, job.free_budget())
        found = {item.name: job.recipe.choices[choice] for item, choice in zip(job.free, picked, strict=True)}
        expected = float(costs[np.arange(len(picked)), picked].sum())
        pages.put("allocation", {}, {"formats": found, "expected_loss": expected})
    note = pages.get("allocation")[1]
    chosen |= note["formats"]
    return {item.name: chosen[item.name] for item in job.items}, note["expected_loss"]


def _measure(job: Job, pages: Journal, say: _Scaled) -> np.ndarray:
    """Costs [free items, choices] in nats a token; each item's row is journaled."""
    assert job.windows is not None, "a budget needs calibration"
    quantizer = Quantizer(job.recipe.cost or job.recipe.method, job.recipe.options if job.recipe.cost is None else {})
    sensitivity = Sensitivity(job.model, job.free, job.windows.ids, job.recipe.calibration.seed)
    rows: dict[str, list[float]] = {}

    def measured(item: Item) -> None:
        name = "cost:" + item.name
        if not pages.has(name):
            pages.put(name, {}, sensitivity.costs(item, job.recipe.choices, quantizer))
        rows[item.name] = pages.get(name)[1]

    for item in job.free:  # or the walk would meet the damage somewhere behind it
        sound.weight(_weight(job, item), item.name)
    if all(pages.has("cost:" + item.name) for item in job.free):
        rows = {item.name: pages.get("cost:" + item.name)[1] for item in job.free}
    else:
        sensitivity.run(measured, say)
    return np.array([rows[item.name] for item in job.free])


def _streamed(job: Job, formats: Mapping[str, str], pages: Journal, say: _Scaled) -> dict[str, Mapping[str, Any]]:
    """Matrix by matrix from the file, one on each thread; nothing else is in memory."""
    say = say.stage(_TRANSFORM if job.recipe.uniform else _MEASURE, _SCALE)
    quantizer = Quantizer(job.recipe.method, job.recipe.options)
    todo = [item for item in job.items if formats[item.name] != KEEP]
    waiting = [item for item in todo if not pages.has_weight(item.name)]
    done = sum(item.parameters for item in todo) - sum(item.parameters for item in waiting)
    total = max(1, sum(item.parameters for item in todo))

    def work(item: Item) -> Item:
        _store(pages, item, quantizer(item, _weight(job, item), TensorFormat.parse(formats[item.name]), None))
        return item

    say(done / total, "quantizing")
    for item in each_on_a_thread(work, waiting):
        done += item.parameters
        say(done / total, f"quantized {item.name}")
    return {item.name: pages.weight_report(item.name) for item in todo}


def _calibrated(job: Job, formats: Mapping[str, str], pages: Journal, say: _Scaled) -> dict[str, Mapping[str, Any]]:
    """Segment by segment: measure the inputs as the quantized part before makes them, quantize, go on with what was
    quantized.
    """
    assert job.windows is not None, "the method needs calibration"
    quantizer = Quantizer(job.recipe.method, job.recipe.options)
    whole = quantizer.method.finish
    after = say.stage(_FINISH, _SCALE)
    say = say.stage(_TRANSFORM if job.recipe.uniform else _MEASURE, _SCALE if whole is None else _FINISH)
    plan = job.model.plan
    replaced: dict[str, Weight] = {}
    held = Held(Overlay(job.model.weights, replaced))
    walk = Walk(plan, job.windows.ids)
    reports: dict[str, Mapping[str, Any]] = {}
    parts = segments(plan)
    kept = {item.name for item in job.items if formats[item.name] == KEEP}
    refined = quantizer.method.refine is not None
    original = Held(job.model.weights)
    float_walk = Walk(plan, job.windows.ids)
    for number, (start, stop) in enumerate(parts):
        here = [item for item in job.items if start <= item.ops[0] < stop and item.name not in kept]
        waiting = [item for item in here if not pages.has_weight(item.name)]
        if refined and waiting:
            waiting = here  # a block is learned as a whole or not at all
        say(number / len(parts), f"measuring the inputs of part {number + 1} of {len(parts)}")
        inputs = Inputs(plan, [item for item in waiting if not quantizer.rounds(item)])
        if any(not quantizer.rounds(item) for item in waiting):
            walk.visit(stop, held, inputs)
        stats = {item.name: None if quantizer.rounds(item) else inputs.of(item) for item in waiting}
        for item in waiting:
            quantizer.prepare(item, stats[item.name])

        def work(item: Item, stats: Mapping[str, Statistics | None] = stats) -> tuple[Item, Quantized]:
            fmt = TensorFormat.parse(formats[item.name])
            done = quantizer(item, _weight(job, item), fmt, stats[item.name])
            if not refined:
                _store(pages, item, done)
            return item, done if refined else replace(done, unrounded=None)

        found: dict[str, Quantized] = {}
        for count, (item, done) in enumerate(each_on_a_thread(work, waiting), 1):
            found[item.name] = done
            say((number + count / (len(waiting) + 1)) / len(parts), f"quantized {item.name}")
        quantizer.forget()
        if refined:
            if stop < len(plan.ops):
                float_walk.advance(stop, original)
                original.drop()
            if any(not quantizer.rounds(item) for item in waiting) and (start, stop) in plan.blocks:
                say((number + 0.9) / len(parts), f"learning part {number + 1} of {len(parts)}")
                setting = rounding(quantizer.inputs(), found)
                block = Block(plan, (start, stop), walk.states, float_walk.states, held, setting)
                found = _learned(job, found, quantizer, block, f"layer {plan.blocks.index((start, stop))}")
            for item in waiting:
                if not pages.has_weight(item.name):  # what an interrupted run stored of this block is the same
                    _store(pages, item, found[item.name])
        held.drop()
        for item in here:
            replaced[item.name], reports[item.name] = pages.get_weight(item.name)
        if stop < len(plan.ops):
            walk.advance(stop, held)
        held.drop()
        for item in here:
            if all(op < stop for op in item.ops):
                del replaced[item.name]
    if whole is not None:
        reports |= _finished(job, reports, quantizer, pages, after)
    return reports


def _finished(
    job: Job, reports: Mapping[str, Mapping[str, Any]], quantizer: Quantizer, pages: Journal, say: _Scaled
) -> dict[str, Mapping[str, Any]]:
    """The reports on the matrices of all blocks after its method has learned them together."""
    assert quantizer.method.finish is not None and job.windows is not None
    # One piece: a job killed within it learns all of it again.
    inside = range(job.model.plan.blocks[0][0], job.model.plan.blocks[-1][1])
    learned = {i.name for i in job.items if i.name in reports and not quantizer.rounds(i) and i.ops[0] in inside}
    if not pages.has(_WHOLE):
        stored = {name: pages.get_weight(name)[0] for name in reports}
        ids = [{"ids": window} for window in job.windows.ids]
        part = (0, len(job.model.plan.ops))
        setting = rounding(quantizer.inputs(), learned)
        made = Block(job.model.plan, part, ids, (), Held(Overlay(job.model.weights, stored)), setting)
        exact = Block(job.model.plan, part, ids, (), Held(job.model.weights))

        def targets(windows: Sequence[int]) -> torch.Tensor:
            with torch.no_grad():
                return exact.forward({}, windows)

        parts = {
            item.name: (_weight(job, item).float(), stored[item.name]) for item in job.items if item.name in learned
        }

        def told(share: float) -> None:
            say(share, f"learning {len(learned)} matrices together")

        told(0.0)
        result = quantizer.method.finish(parts, made.forward, targets, len(ids), quantizer.options, told)
        pages.put_weights(_WHOLE, result.weights, {"kl_before": result.before, "kl_after": result.after})
    weights, note = pages.get_weights(_WHOLE)
    found: dict[str, Mapping[str, Any]] = {
        name: {**reports[name], "details": {**reports[name]["details"], **note}} for name in learned
    }
    for name, q in weights.items():
        if reports[name] != found[name]:  # else it was stored before an interruption
            pages.put_weight(name, q, found[name])
    return found


def _learned(
    job: Job, found: Mapping[str, Quantized], quantizer: Quantizer, block: Block, name: str
) -> dict[str, Quantized]:
    """A block's matrices after its method has learned them together; each report says what became of the block's error."""
    assert quantizer.method.refine is not None
    by_name = {item.name: item for item in job.items}
    parts = {
        key: (_weight(job, by_name[key]).float() if done.unrounded is None else done.unrounded, done.qtensor)
        for key, done in found.items()
    }
    windows = len(block.states)
    result = quantizer.method.refine(parts, block.forward, block.targets, windows, quantizer.options, name)
    details = {"block_error_before": result.before, "block_error_after": result.after, "kept": result.kept}
    return {
        key: Quantized(result.weights[key], replace(done.report, details={**done.report.details, **details}))
        for key, done in found.items()
    }


def _weight(job: Job, item: Item) -> torch.Tensor:
    stored = job.model.weights.get(item.name)
    if isinstance(stored, QTensor):
        raise RecipeError(f"{item.name} is quantized already; start from the original model")
    return stored


def _store(pages: Journal, item: Item, done: Quantized) -> None:
    pages.put_weight(item.name, done.qtensor, asdict(done.report))
