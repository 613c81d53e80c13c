"""What every quantizer asks of its input, said in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.quantize.statistics import Statistics


def finite(x: Tensor) -> bool:
    """Neither NaN nor infinite anywhere."""
    # A sum is NaN or infinite where any element is, at a tenth of the cost of testing each; float64 cannot overflow
    # here.
    return bool(torch.isfinite(x.sum(dtype=torch.float64)))


def weight(w: Tensor, name: str) -> None:
    """Raises RecipeError unless w is a finite floating matrix."""
    if w.ndim != 2 or 0 in w.shape:
        raise RecipeError(f"{name}: a quantizer takes a matrix [rows, columns], got shape {tuple(w.shape)}")
    if not w.is_floating_point():
        raise RecipeError(f"{name}: a quantizer takes a floating weight, got {w.dtype}")
    if not finite(w):
        raise RecipeError(f"{name}: the weight holds NaN or infinite values; the checkpoint is damaged")


def statistics(stats: Statistics | None, columns: int, method: str, name: str) -> Statistics:
    """The statistics, present, of the right width and with at least one token; RecipeError otherwise."""
    if stats is None or stats.tokens == 0:
        raise RecipeError(f"{name}: {method} needs calibration inputs, and there are none")
    if stats.columns != columns:
        raise RecipeError(f"{name}: the weight has {columns} columns, the calibration inputs {stats.columns}")
    return stats
