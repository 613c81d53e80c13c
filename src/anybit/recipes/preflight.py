"""What running a recipe on a model will do and cost; refuses before the start what cannot finish."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from anybit import models
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models import Model
from anybit.models.checkpoint import check_output
from anybit.quantize import rtn, table
from anybit.recipes import calibration, items, journal
from anybit.recipes.items import Accounting, Item
from anybit.recipes.recipe import KEEP, Recipe

SPARE_DISK = 64 << 20
"""Bytes of disk left free beside what a job writes."""


@dataclass(frozen=True)
class TensorPlan:
    """What happens to one weight matrix. format: its spec, "keep", or None where the budget will choose among the
    choices.

    bytes: stored afterwards; where the budget chooses, its share of the budget by number of parameters.
    """

    name: str
    shape: tuple[int, int]
    role: items.Role
    format: str | None
    bytes: int


@dataclass(frozen=True)
class Preflight:
    """What `run` with the same arguments will do.

    Sizes in bytes, of tensors alone: source as stored now, predicted after. bits_per_weight as docs/architecture.md
    counts it; for a budget the upper limit. memory: the peak of this process, and seconds, are estimates.
    disk_needed: free space the job must find at the output, half of it only until it ends. finished: pieces an
    interrupted run of this job has done already. choices: formats a budget chooses among; empty for a uniform
    recipe. calibration: the text used, None where none is needed. notes: sentences a person should read before
    saying yes.
    """

    model: Path
    out: Path
    method: str
    tensors: tuple[TensorPlan, ...]
    choices: tuple[str, ...]
    parameters: int
    source_bytes: int
    predicted_bytes: int
    bits_per_weight: float
    calibration: Path | None
    calibration_tokens: int
    memory: int
    seconds: float
    disk_needed: int
    disk_free: int
    finished: int
    notes: tuple[str, ...]


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
    accounting = items.account(model, found)
    formats = items.fixed_formats(recipe, found)
    text = windows = None
    if calibration.needed(recipe):
        text = calibration.find(model.path, recipe.calibration)
        windows = calibration.windows(model, calibration.read(text), recipe.calibration, str(text))
    job = Job(model, recipe, out, found, formats, accounting, windows, text)
    if not recipe.uniform:
        _check_budget(job)
    _check_disk(job)
    return job


def preflight(model_path: Path | str, recipe: Recipe, out: Path | str, *, overwrite: bool = False) -> Preflight:
    """What `run` with the same arguments will do; nothing is written.

    Raises AnybitError where it could not finish: a damaged or quantized model, an output that exists (without
    `overwrite`) or cannot be written, a budget out of reach, an unusable calibration text, too little disk space.
    """
    job = check(model_path, recipe, out, overwrite=overwrite)
    predicted = predicted_item_bytes(job)
    share = job.free_budget() / sum(i.parameters for i in job.free) if job.free else 0.0
    plans = []
    for item in job.items:
        spec = job.formats[item.name]
        nbytes = int(share * item.parameters) if spec is None else items.size(item, spec, job.accounting)
        plans.append(TensorPlan(item.name, item.shape, item.role, spec, nbytes))
    return Preflight(
        model=job.model.path,
        out=job.out,
        method=recipe.method,
        tensors=tuple(plans),
        choices=() if recipe.uniform else recipe.choices,
        parameters=job.accounting.parameters,
        source_bytes=job.accounting.source_bytes,
        predicted_bytes=predicted + job.accounting.other_bytes,
        bits_per_weight=job.accounting.bits_per_weight(predicted),
        calibration=job.text,
        calibration_tokens=job.windows.tokens if job.windows else 0,
        memory=_memory(job),
        seconds=_seconds(job),
        disk_needed=disk_needed(job),
        disk_free=_disk_free(job.out),
        finished=journal.count(job.out),
        notes=tuple(_notes(job)),
    )


def predicted_item_bytes(job: Job) -> int:
    """Bytes of all items afterwards; with a budget at most this."""
    fixed = fixed_bytes(job)
    if not job.free:
        return fixed
    largest = sum(max(items.size(item, c, job.accounting) for c in job.recipe.choices) for item in job.free)
    return fixed + int(min(job.free_budget(), largest))


def disk_needed(job: Job) -> int:
    """Finished pieces lie in the journal until the checkpoint is written beside them."""
    return 2 * predicted_item_bytes(job) + job.accounting.other_bytes + SPARE_DISK


def _check_budget(job: Job) -> None:
    if not job.free:
        raise RecipeError(
            "with a budget, at least one weight matrix must be left to it; overrides and formats fix all of them"
        )
    sizes = [[items.size(item, choice, job.accounting) for choice in job.recipe.choices] for item in job.free]
    fixed = fixed_bytes(job)
    low, high = (job.accounting.bits_per_weight(fixed + sum(pick(row) for row in sizes)) for pick in (min, max))
    bits = job.recipe.bits
    assert bits is not None, "only a budget is checked"
    if not low <= bits <= high:
        side = "below the smallest" if bits < low else "above the largest"
        raise RecipeError(
            f"a budget of {bits:g} bits a weight is {side} possible for this model: the choices {', '.join(job.recipe.choices)} "
            f"reach {low:.4f} to {high:.4f} bits over everything stored"
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


def _disk_free(out: Path) -> int:
    return shutil.disk_usage(_existing(out)).free


def _check_disk(job: Job) -> None:
    needed, free = disk_needed(job), _disk_free(job.out) + journal.nbytes(job.out)
    if needed > free:
        raise RecipeError(
            f"{_existing(job.out)} has {free / 1e6:,.0f} MB free, and the job needs {needed / 1e6:,.0f} MB there "
            "(finished pieces and the checkpoint)"
        )


def _notes(job: Job) -> list[str]:
    notes = []
    specs = job.recipe.choices if not job.recipe.uniform else ()
    for item in job.items:
        spec = job.formats[item.name]
        for each in (spec,) if spec is not None else specs:
            if note := items.short_groups(item, each):
                notes.append(note)
    if job.recipe.uniform:
        for item in job.items:
            if item.role != "linear" and job.recipe.override(item.name) is None:
                given = {"embedding": job.recipe.embeddings, "lm_head": job.recipe.lm_head}.get(
                    item.role, job.recipe.embeddings or job.recipe.lm_head
                )
                if given is None:
                    notes.append(
                        f"{item.name} ({item.role.replace('_', ' ')}) goes to {job.formats[item.name]}, the default for it"
                    )
    unread = (
        set(job.model.weights.names()) - set(job.model.plan.weight_names()) - set(job.model.weights.aliases.values())
    )
    if unread:
        notes.append(f"{len(unread)} stored tensors that the model does not use are left out, such as {min(unread)}")
    if job.windows:
        wanted = job.recipe.calibration.samples
        if len(job.windows.ids) < wanted:
            notes.append(f"the calibration text is enough for {len(job.windows.ids)} of {wanted} windows")
        widest = max(item.shape[1] for item in job.items)
        if job.windows.tokens < 2 * widest:
            notes.append(
                f"{job.windows.tokens} calibration tokens are few for layers with {widest} inputs; more text gives a better model"
            )
    if (done := journal.count(job.out)) > 0:
        notes.append(f"an interrupted run left {done} finished pieces; the same job goes on from there")
    return notes


def _memory(job: Job) -> int:
    """Peak resident bytes: this process as it is, and the largest working set of a stage."""
    base = psutil.Process().memory_info().rss
    largest = max(job.accounting.stored[item.name] + 2 * item.parameters for item in job.items) + (192 << 20)
    if job.windows is None:
        return base + largest
    hidden = max(item.shape[1] for item in job.items if item.role != "embedding")
    block = max(
        (sum(4 * i.parameters for i in job.items if set(i.ops) & set(range(a, b))) for a, b in job.model.plan.blocks),
        default=0,
    )
    width = max(job.model.plan.buffers[op.output] for op in job.model.plan.ops if op.kind == "embedding")
    activations = 2 * 4 * job.windows.tokens * width
    if not job.recipe.uniform:
        activations += 4 * min(job.windows.tokens, 8192) * width * (len(job.model.plan.blocks) + 2)
    return base + max(largest, 2 * block + activations + 6 * 4 * hidden * hidden)


def _seconds(job: Job) -> float:
    """Estimated from a short measurement of rounding and of a matrix product on this machine."""
    spec = next((s for s in (*job.formats.values(), *job.recipe.choices) if s not in (None, KEEP)), None)
    if spec is None:
        return job.accounting.source_bytes / 1e9
    sample = torch.randn(256, 1024)
    rule = str(job.recipe.options.get("scale_rule", "mse"))
    start = time.perf_counter()
    rtn.quantize(sample, TensorFormat.parse(spec), options=table.get("rtn").parse({"scale_rule": rule}))
    rounding = (time.perf_counter() - start) / sample.numel()
    rounds = 1 if job.recipe.uniform else 1 + len(job.recipe.choices)
    parameters = sum(item.parameters for item in job.items)
    seconds = parameters * rounding * rounds + job.accounting.source_bytes / 0.5e9
    if job.windows is not None:
        square = torch.randn(512, 512)
        start = time.perf_counter()
        square @ square
        speed = 2 * 512**3 / (time.perf_counter() - start)
        passes = 2 if job.recipe.uniform else 6
        flops = 2.0 * job.windows.tokens * parameters * passes
        for item in job.items:
            if item.role in ("linear", "lm_head"):
                n, k = item.shape
                flops += rounds * 2.0 * n * k * k + 2.0 * k**3 + 2.0 * job.windows.tokens * k * k
        seconds += flops / speed
    return seconds
