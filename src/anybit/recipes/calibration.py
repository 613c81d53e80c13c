"""Calibration text: found, checked, and cut into windows of tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.models import Model
from anybit.quantize import table
from anybit.recipes.recipe import Calibration, Recipe
from anybit.transforms import table as transforms

LEAST_TOKENS = 128
"""Fewer say nothing about a layer's inputs."""


@dataclass(frozen=True)
class Windows:
    """ids: windows of token ids, int64 [length] each.  tokens: their total.  text: what they were cut from."""

    ids: tuple[Tensor, ...]
    tokens: int
    text: str


def needed(recipe: Recipe) -> bool:
    """Whether the recipe's method, its budget, static activations or one of its transforms has to see inputs."""
    if not recipe.uniform or recipe.static is not None or table.get(recipe.method).needs != "weights":
        return True
    return any(transforms.get(step.name).needs == "inputs" for step in recipe.steps)


def find(model_path: Path, calibration: Calibration) -> Path:
    """The text file: the recipe's, or `calibration.txt` in the model's folder. RecipeError where there is none."""
    if calibration.text is not None:
        if not calibration.text.is_file():
            raise RecipeError(f"the calibration text {calibration.text} is not a file")
        return calibration.text
    own = model_path / "calibration.txt"
    if not own.is_file():
        raise RecipeError(
            f"{model_path} has no calibration.txt of its own; give a text like the one the model will see with --calibration FILE"
        )
    return own


def read(path: Path) -> str:
    """The text. RecipeError where it is empty, not UTF-8, or cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the calibration text {path}: {error}") from None
    if not text.strip():
        raise RecipeError(f"the calibration text {path} is empty")
    return text


def windows(model: Model, text: str, calibration: Calibration, source: str) -> Windows:
    """Cut the text into at most `samples` windows of `length` tokens, evenly spread; each begins with BOS where the
    model has one.

    A text too short for all of them gives as many as fit, at least one (which may be shorter).
    Raises RecipeError where it gives fewer than 128 tokens, CheckpointError where the model has no tokenizer.
    """
    length = min(calibration.length, model.plan.max_positions)
    first = [] if model.tokenizer.bos is None else [model.tokenizer.bos]
    body = length - len(first)
    ids = model.tokenizer.encode(text)
    if len(ids) < LEAST_TOKENS:
        raise RecipeError(
            f"the calibration text {source} is too short: {len(ids)} tokens, at least {LEAST_TOKENS} are needed"
        )
    count = max(1, min(calibration.samples, len(ids) // body))
    spare = max(0, len(ids) - count * body)
    # Evenly spread with the spare tokens between them; the seed moves the whole comb.
    shift = random.Random(calibration.seed).random() / count if spare else 0.0
    starts = [i * body + int(spare * (i / count + shift)) for i in range(count)]
    cut = tuple(torch.tensor([*first, *ids[start : start + body]], dtype=torch.int64) for start in starts)
    return Windows(cut, sum(len(window) for window in cut), text)
