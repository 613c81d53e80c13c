"""A job: a model, a recipe and an output, checked before anything is begun."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anybit import models, tensors
from anybit.errors import FormatError, RecipeError
from anybit.formats import TensorFormat
from anybit.models import Model
from anybit.models.checkpoint import check_output
from anybit.models.online import AtRunTime
from anybit.quantize import table
from anybit.quantize.rule import power_for
from anybit.recipes import calibration, items, journal
from anybit.recipes.items import Accounting, Item
from anybit.recipes.recipe import KEEP, Recipe
from anybit.transforms import table as transforms

SPARE_DISK = 64 << 20
"""Bytes of disk left free beside what a job writes."""


@dataclass(frozen=True)
class Job:
    """A checked job: everything `run` needs, with nothing started."""

    model: Model
    recipe: Recipe
    out: Path
    items: tuple[Item, ...]
    formats: dict[str, str | None]
    """Item name -> spec, "keep", or None where the budget decides."""
    accounting: Accounting
    windows: calibration.Windows | None
    text: Path | None
    online: tuple[AtRunTime, ...] = ()
    """Transforms that the quantized model needs at run time."""

    @property
    def free(self) -> list[Item]:
        """Items whose format the budget decides."""
        return [item for item in self.items if self.formats[item.name] is None]

    def free_budget(self) -> float:
        """Bytes that the items in `free` may take together."""
        assert self.recipe.bits is not None, "only a budget leaves items free"
        return self.accounting.item_budget(self.recipe.bits) - fixed_bytes(self)


def check(model_path: Path | str, recipe: Recipe, out: Path | str, *, overwrite: bool = False) -> Job:
    """Open the model and check everything that can be checked before work begins.

    Raises AnybitError (RecipeError, CheckpointError, UnsupportedModelError) with one sentence saying what is wrong.
    """
    out = Path(out)
    model = models.load(model_path)
    _check_output(model.path, out, overwrite)
    found = tuple(items.quantizable(model))
    for item in found:
        stored = model.weights.dtype(item.name)
        if isinstance(stored, TensorFormat):
            raise RecipeError(
                f"{model.path}: {item.name} is quantized already ({stored}); start from the original model"
            )
        if not stored.is_floating_point:
            raise RecipeError(f"{model.path}: {item.name} is stored as {stored}, not as floating numbers")
    _check_transforms(model, recipe)
    accounting = items.account(model, found, recipe.static is not None)
    formats = items.fixed_formats(recipe, found)
    _check_rules(recipe, found, formats)
    _check_stored(recipe, found, formats)
    text = windows = None
    if calibration.needed(recipe):
        text = calibration.find(model.path, recipe.calibration)
        windows = calibration.windows(model, calibration.read(text), recipe.calibration, str(text))
    job = Job(model, recipe, out, found, formats, accounting, windows, text)
    if not recipe.uniform:
        _check_budget(job)
    _check_disk(job)
    return job


def predicted_item_bytes(job: Job) -> int:
    """Bytes of all items afterwards; with a budget at most this."""
    fixed = fixed_bytes(job)
    return fixed if not job.free else fixed + int(min(job.free_budget(), _reach(job)[1]))


def plenty(job: Job) -> bool:
    """Whether the budget allows more than the largest choice of every matrix takes."""
    return bool(job.free) and job.free_budget() > _reach(job)[1]


def _reach(job: Job) -> tuple[int, int]:
    """Bytes of the items that the budget decides on in their smallest and in their largest choices."""
    sizes = [[items.size(item, choice, job.accounting) for choice in job.recipe.choices] for item in job.free]
    return sum(map(min, sizes)), sum(map(max, sizes))


def disk_needed(job: Job) -> int:
    """Finished pieces lie in the journal until the checkpoint is written beside them."""
    return 2 * predicted_item_bytes(job) + job.accounting.other_bytes + SPARE_DISK


def _check_rules(recipe: Recipe, found: tuple[Item, ...], formats: dict[str, str | None]) -> None:
    """Whether the rule for scales knows every format that the job may use, tried on zeros in the shape of one block row."""
    options = table.get(recipe.method).parse(recipe.options)
    rule: Any = getattr(options, "scale_rule", None)
    power: Any = getattr(options, "power", "")
    if rule is None or (rule in ("absmax", "mse") and not power):
        return  # they know every format, and a search over a whole tensor is work
    tried: set[tuple[str, tuple[int, int]]] = set()
    for item in found:
        given = formats[item.name]
        for spec in recipe.choices if given is None else (given,):
            if spec == KEEP:
                continue
            fmt = TensorFormat.parse(spec)
            rows = fmt.block[0] or item.shape[0]
            shape = (min(rows, item.shape[0]), item.shape[1])
            if fmt.scale is None or (spec, shape) in tried:
                continue
            tried.add((spec, shape))
            try:
                tensors.block_scales(torch.zeros(shape), fmt, rule, None, power_for(power, fmt))
            except FormatError as error:
                raise RecipeError(f"{item.name} cannot be quantized as the recipe says: {error}") from None


def _check_transforms(model: Model, recipe: Recipe) -> None:
    """Whether every transform of the recipe takes the widths of the model's blocks."""
    plan = model.plan
    for step in recipe.steps:
        transform = transforms.get(step.name)
        options = transform.parse(step.options)
        for op in plan.ops[plan.blocks[0][0] : plan.blocks[-1][1]]:
            if transform.fits is not None and op.kind == "linear":
                transform.fits(options, plan.buffers[op.inputs[0]], op.weights[0].name)


def _check_stored(recipe: Recipe, found: tuple[Item, ...], formats: dict[str, str | None]) -> None:
    """Whether matrices may have the formats they are given, or may be, by the method and behind every transform of the recipe."""
    method = table.get(recipe.method)
    if method.stores is not None:
        _each_format(recipe, found, formats, method.stores)
    for step in recipe.steps:
        transform = transforms.get(step.name)
        if transform.stores is None:
            continue
        _each_format(recipe, found, formats, functools.partial(transform.stores, transform.parse(step.options)))


def _each_format(
    recipe: Recipe,
    found: tuple[Item, ...],
    formats: dict[str, str | None],
    check: Callable[[TensorFormat, str], None],
) -> None:
    """check(format, name) of every matrix that is only multiplied with, and every format it may have."""
    for item in found:
        given = formats[item.name]
        for spec in recipe.choices if given is None else (given,):
            if item.role in ("linear", "lm_head") and spec != KEEP:
                check(TensorFormat.parse(spec), item.name)


def _check_budget(job: Job) -> None:
    if not job.free:
        raise RecipeError(
            "with a budget, at least one weight matrix must be left to it; overrides and formats fix all of them"
        )
    low, high = (job.accounting.bits_per_weight(fixed_bytes(job) + reached) for reached in _reach(job))
    bits = job.recipe.bits
    assert bits is not None, "only a budget is checked"
    if bits < low:
        raise RecipeError(
            f"a budget of {bits:g} bits a weight is below the smallest possible for this model: the "
            f"{len(job.recipe.choices)} formats it may choose from reach {low:.4f} to {high:.4f} bits over everything stored"
        )


def fixed_bytes(job: Job) -> int:
    """Bytes of the items whose format is given."""
    return sum(
        items.size(item, spec, job.accounting) for item in job.items if (spec := job.formats[item.name]) is not None
    )


def _check_output(model: Path, out: Path, overwrite: bool) -> None:
    if out.resolve() == model.resolve():
        raise RecipeError(f"the output {out} is the model itself; choose another folder")
    # With a journal beside it, the output may be this very job's, killed just before it cleaned up; `run` will see.
    if not journal.folder(out).is_dir():
        check_output(out, overwrite)
    elif out.exists() and not out.is_dir():
        raise RecipeError(f"the output {out} is a file; give a folder")
    parent = _existing(out)
    try:
        if not parent.is_dir():
            raise NotADirectoryError(f"{parent} is a file")
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise RecipeError(f"the output {out} cannot be written: {error.strerror or error}") from None


def _existing(out: Path) -> Path:
    """The nearest folder above the output that is there."""
    return next(parent for parent in out.absolute().parents if parent.exists())


def disk_free(out: Path) -> int:
    """Bytes free where the output goes."""
    return shutil.disk_usage(_existing(out)).free


def _check_disk(job: Job) -> None:
    needed, free = disk_needed(job), disk_free(job.out) + journal.nbytes(job.out)
    if needed > free:
        raise RecipeError(
            f"{_existing(job.out)} has {free / 1e6:,.0f} MB free, and the job needs {needed / 1e6:,.0f} MB there "
            "(finished pieces and the checkpoint)"
        )
