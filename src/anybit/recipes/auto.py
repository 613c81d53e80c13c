"""`--method auto`: try what fits a budget on a small sample of the calibration text, and quantize with the best.

Every candidate is a whole recipe.  It is run on a few windows from the first four fifths of the text and scored by the KL divergence to the
original model on windows of the rest; the best is then run with the calibration that was asked for, and its recipe keeps the list of all.
Trials are journaled beside the output: a run that was killed goes on where it was and ends in the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from anybit import models
from anybit.errors import AnybitError, RecipeError
from anybit.models import Model, TorchExecutor
from anybit.models.evaluation import Remembering, cut, divergence
from anybit.quantize import table
from anybit.recipes import calibration, estimates, journal, output, pipeline
from anybit.recipes.job import check, predicted_item_bytes
from anybit.recipes.journal import Journal
from anybit.recipes.pipeline import Progress, Result
from anybit.recipes.recipe import Recipe, Tried

BUDGET: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("gptq", ()),
    ("gptq", ("awq",)),
    ("gptq", ("rotate_inputs",)),
    ("gradient_ptq", ()),
    ("gradient_ptq", ("rotate_inputs",)),
    ("distill", ()),
)
"""Methods and transforms tried at any budget or format."""

WHOLE = ("nf4", "itq3_s")
"""Methods with a format of their own, tried where that fits a budget."""

SAMPLES, LENGTH = 8, 256
"""Windows of a trial, at most, and their tokens."""

SCORED = 2048
"""Tokens that candidates are compared on, about."""

PART = 0.8
"""Share of the text that trials calibrate on; they are compared on the rest."""


@dataclass(frozen=True)
class Candidate:
    """label: method and transforms.  refused: why it cannot run on this model, else None."""

    label: str
    recipe: Recipe
    refused: str | None = None


@dataclass(frozen=True)
class Chosen:
    """result: of the run with the best candidate.  tried: all of them; best: the label of the one kept."""

    result: Result
    tried: tuple[Tried, ...]
    best: str


def candidates(
    model_path: Path | str, recipe: Recipe, out: Path | str, *, overwrite: bool = False
) -> tuple[Candidate, ...]:
    """What would be tried for the format or budget of a recipe (whose own method does not matter), checked but not begun.

    A recipe with transforms has every candidate run behind these; one with options gives them to every method.  Raises what `recipes.check`
    does where no candidate can run, and RecipeError for options that some candidate does not have.
    """
    given = recipe.model_dump(mode="json", exclude={"method", "transforms", "tried"})
    made: list[tuple[str, dict[str, Any]]] = []
    for method, transforms in BUDGET:
        steps = transforms if recipe.transforms is None else tuple(step.name for step in recipe.transforms)
        label = ", ".join((method, *steps))
        if label not in (known for known, _ in made):
            own: Any = list(transforms)
            if recipe.transforms is not None:
                own = [step.model_dump(mode="json") for step in recipe.transforms]
            made.append((label, {**given, "method": method, "transforms": own}))
    if recipe.bits is not None and recipe.transforms is None and not recipe.options:
        for method in WHOLE:
            made.append((method, {**given, "bits": None, "method": method, "weights": table.get(method).weights}))
    found: list[Candidate] = []
    errors: list[AnybitError] = []
    for label, document in made:
        each = Recipe.parse(document, source=label)
        try:
            job = check(model_path, each, out, overwrite=overwrite)
            estimates.fits(job)
            bits = job.accounting.bits_per_weight(predicted_item_bytes(job))
            if recipe.bits is not None and not bits <= recipe.bits:
                raise RecipeError(f"{label} takes {bits:.3f} bits a weight, more than the budget of {recipe.bits:g}")
            found.append(Candidate(label, each))
        except AnybitError as error:
            errors.append(error)
            found.append(Candidate(label, each, str(error)))
    if len(errors) == len(found):
        raise errors[0]
    return tuple(found)


def run(
    model_path: Path | str,
    recipe: Recipe,
    out: Path | str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Chosen:
    """Try, choose, and write the checkpoint to `out`; raises as `candidates` and `recipes.run`."""
    out = Path(out)
    trials = out.with_name(out.name + ".trials")
    resumed = journal.folder(trials).is_dir() and not overwrite
    listed = candidates(model_path, recipe, out, overwrite=overwrite or resumed)
    model = models.load(model_path)
    text = calibration.read(calibration.find(model.path, recipe.calibration))
    mark = journal.fingerprint(model.path, recipe.fingerprint(), text, torch.get_num_threads())
    with Journal(trials, mark, restart=overwrite) as pages:
        best, tried = _chosen(model, recipe, listed, text, pages, progress)
        final = best.recipe.model_copy(update={"tried": tried})
        # An output beside trials of this very job is what it wrote just before it was killed.
        again = resumed and out.exists() and output.written(out, _mark(model, final, out))
        if out.exists() and not (overwrite or again) and not journal.folder(out).is_dir():
            raise RecipeError(f"the output {out} exists; choose another folder or give --overwrite")

        def told(fraction: float, message: str) -> None:
            if progress is not None:
                progress(0.5 + fraction / 2, f"{best.label}: {message}")

        result = pipeline.run(model_path, final, out, overwrite=overwrite or again, progress=told)
        pages.remove()
    return Chosen(result, tried, best.label)


def _mark(model: Model, recipe: Recipe, out: Path) -> dict[str, str]:
    job = check(model.path, recipe, out, overwrite=True)
    threads = torch.get_num_threads() if job.windows else None
    text = job.windows.text if job.windows else None
    return journal.fingerprint(model.path, recipe.fingerprint(), text, threads)


def _chosen(
    model: Model,
    recipe: Recipe,
    listed: Sequence[Candidate],
    text: str,
    pages: Journal,
    progress: Progress | None,
) -> tuple[Candidate, tuple[Tried, ...]]:
    """The candidate of least divergence, the earlier of equal ones, and what is known of all."""
    middle = int(len(text) * PART)
    seen = pages.path / "calibration.txt"
    seen.write_text(text[:middle], encoding="utf-8")
    window = min(LENGTH, model.plan.max_positions)
    windows = cut(model.tokenizer.encode(text[middle:]), window, model.tokenizer.bos, SCORED)
    reference = Remembering(TorchExecutor(model.plan, model.weights))
    sample = recipe.calibration.model_copy(
        update={
            "text": seen,
            "samples": min(SAMPLES, recipe.calibration.samples),
            "length": min(LENGTH, recipe.calibration.length),
        }
    )
    tried: list[Tried] = []
    for number, candidate in enumerate(listed):

        def told(fraction: float, message: str, number: int = number, label: str = candidate.label) -> None:
            if progress is not None:
                progress((number + fraction) / len(listed) / 2, f"trying {label}: {message}")

        if candidate.refused is not None:
            tried.append(Tried(candidate=candidate.label, refused=candidate.refused))
            continue
        piece = f"trial:{number}"
        if not pages.has(piece):
            told(0.0, "quantizing the sample")
            pages.put(
                piece, {}, _trial(model, candidate, sample, pages.path / f"trial-{number}", windows, reference, told)
            )
        tried.append(Tried(**pages.get(piece)[1]))
    able = [number for number, each in enumerate(tried) if each.kl is not None]
    if not able:
        raise RecipeError("; ".join(f"{each.candidate}: {each.refused}" for each in tried))
    best = min(able, key=lambda number: (tried[number].kl, number))
    return listed[best], tuple(tried)


def _trial(
    model: Model,
    candidate: Candidate,
    sample: Any,
    out: Path,
    windows: Sequence[Sequence[int]],
    reference: Remembering,
    told: Progress,
) -> dict[str, Any]:
    quick = candidate.recipe.model_copy(update={"calibration": sample})
    try:
        if not out.exists():
            pipeline.run(model.path, quick, out, progress=told)
        made = models.load(out)
        far = divergence(TorchExecutor(made.plan, made.weights), reference, windows)
    except journal.Unwritable:
        raise
    except AnybitError as error:
        return {"candidate": candidate.label, "refused": str(error)}
    kl = far.kl if far.kl == far.kl else float("inf")
    shutil.rmtree(out)
    return {"candidate": candidate.label, "bits_per_weight": made.bits_per_weight, "kl": kl}
