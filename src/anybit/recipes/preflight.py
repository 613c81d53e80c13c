"""What running a recipe on a model will do and cost; refuses before the start what cannot finish."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anybit.recipes import estimates, items, journal
from anybit.recipes.job import Job, check, disk_free, disk_needed, fixed_bytes, plenty, predicted_item_bytes
from anybit.recipes.recipe import KEEP, Recipe


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
    recipe. activations: their static format, None where there is none. calibration: the text used, None where none is
    needed. notes: sentences a person should read before saying yes.
    """

    model: Path
    out: Path
    method: str
    transforms: tuple[str, ...]
    activations: str | None
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


def preflight(model_path: Path | str, recipe: Recipe, out: Path | str, *, overwrite: bool = False) -> Preflight:
    """What `run` with the same arguments will do; nothing is written.

    Raises AnybitError where it could not finish: a damaged or quantized model, an output that exists (without
    `overwrite`) or cannot be written, a budget below what the choices reach, an unusable calibration text, too little disk space.
    """
    job = check(model_path, recipe, out, overwrite=overwrite)
    estimates.fits(job)
    predicted = predicted_item_bytes(job)
    share = (predicted - fixed_bytes(job)) / sum(i.parameters for i in job.free) if job.free else 0.0
    plans = []
    for item in job.items:
        spec = job.formats[item.name]
        nbytes = int(share * item.parameters) if spec is None else items.size(item, spec, job.accounting)
        plans.append(TensorPlan(item.name, item.shape, item.role, spec, nbytes))
    return Preflight(
        model=job.model.path,
        out=job.out,
        method=recipe.method,
        transforms=tuple(step.name for step in recipe.steps),
        activations=None if recipe.static is None else recipe.activations,
        tensors=tuple(plans),
        choices=() if recipe.uniform else recipe.choices,
        parameters=job.accounting.parameters,
        source_bytes=job.accounting.source_bytes,
        predicted_bytes=predicted + job.accounting.other_bytes,
        bits_per_weight=job.accounting.bits_per_weight(predicted),
        calibration=job.text,
        calibration_tokens=job.windows.tokens if job.windows else 0,
        memory=estimates.memory(job),
        seconds=estimates.seconds(job),
        disk_needed=disk_needed(job),
        disk_free=disk_free(job.out),
        finished=journal.count(job.out),
        notes=tuple(_notes(job)),
    )


def _notes(job: Job) -> list[str]:
    notes = []
    specs = job.recipe.choices if not job.recipe.uniform else ()
    for item in job.items:
        spec = job.formats[item.name]
        for each in (spec,) if spec is not None else specs:
            if note := items.short_groups(item, each):
                notes.append(note)
    if plenty(job):
        bits = job.accounting.bits_per_weight(predicted_item_bytes(job))
        notes.append(
            f"the budget allows more than the finest choices take, {bits:.3f} bits a weight: every matrix gets its best"
        )
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
    if job.recipe.steps and KEEP in job.formats.values():
        notes.append("matrices that are kept but rewritten by a transform are stored in float32")
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
