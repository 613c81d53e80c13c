"""Round to nearest: scales from the weight (and, where known, how strongly each input column is driven), every
weight alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize import check
from anybit.quantize.result import Quantized, Report
from anybit.quantize.rule import Power, power_for
from anybit.quantize.statistics import Statistics

ROWS = 512
"""Rows worked on at a time, so that temporaries stay small beside the weight."""


@dataclass(frozen=True)
class Options:
    """scale_rule: a rule of `tensors.block_scales`: "absmax" puts the largest weight on the largest value, "mse" searches
    the scale of least squared error, "exact" finds it, "four_over_six" and "gaussian" are those of NVFP4 and Quartet.

    importance: weigh the errors of "mse", "exact" and "four_over_six" by the mean square of each input column where
    statistics are given.  power: "floor", "nearest", "four_thirds" or "ceil", how e8m0 scales of "absmax" and
    "gaussian" become powers of two; "" as `block_scales` does. Other scales are as without it.
    """

    scale_rule: tensors.ScaleRule = "mse"
    importance: bool = True
    power: Power = ""


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None = None,
    options: Options | None = None,
    *,
    name: str = "layer",
) -> Quantized:
    """Round weight [N, K] (any float dtype, unchanged) to `fmt`; statistics are optional.

    Raises RecipeError for NaN, a wrong shape, or statistics of another width, FormatError for a rule the format does not allow.
    """
    options = options or Options()
    check.weight(weight, name)
    importance = None
    if stats is not None:
        check.statistics(stats, weight.shape[1], "rtn", name)
        importance = stats.second_moment.float() if options.importance else None
    q = tensors.quantize(weight, fmt, options.scale_rule, importance=importance, power=power_for(options.power, fmt))
    return Quantized(q, Report("rtn", str(fmt), relative_error(weight, q, stats)))


def relative_error(weight: Tensor, q: tensors.QTensor, stats: Statistics | None) -> float:
    """Σ (w - ŵ) H (w - ŵ)ᵀ / Σ w H wᵀ over all rows, H the identity without statistics; 0 for a weight of zeros."""
    wrong = total = 0.0
    tall = q.format.block[0]
    step = tall * max(1, ROWS // tall) if tall else ROWS
    for start in range(0, weight.shape[0], step):
        stop = min(start + step, weight.shape[0])
        w = weight[start:stop].to(torch.float32, copy=True)
        d = w - q.rows(start, stop).dequantize()
        if stats is None:
            rows, whole = d.square_(), w.square_()
        else:
            hessian = stats.hessian.float()
            rows, whole = (d @ hessian).mul_(d), (w @ hessian).mul_(w)
        # Row by row first: the same sums whatever the number of threads.
        wrong += float(rows.sum(1, dtype=torch.float64).sum())
        total += float(whole.sum(1, dtype=torch.float64).sum())
    return wrong / total if total > 0 else 0.0


def squared_output(weight: Tensor, stats: Statistics) -> float:
    """Σ w H wᵀ over all rows: the squared outputs (twice them, by the Hessian's factor 2) a token."""
    total = 0.0
    for start in range(0, weight.shape[0], ROWS):
        w = weight[start : start + ROWS].to(stats.hessian.dtype)
        total += float((w @ stats.hessian).mul_(w).sum(1, dtype=torch.float64).sum())
    return total


@dataclass(frozen=True)
class Absmax:
    """scale_rule: as of `Options`; absmax is what papers round with."""

    scale_rule: tensors.ScaleRule = "absmax"


def under(method: str) -> Callable[..., Quantized]:
    """`quantize` as the last step of a method with the options `Absmax`, and which the report names."""

    def quantize_under(
        weight: Tensor,
        fmt: TensorFormat,
        stats: Statistics | None = None,
        options: Absmax | None = None,
        *,
        name: str = "layer",
    ) -> Quantized:
        rule = (options or Absmax()).scale_rule
        return quantize(weight, fmt, stats, Options(rule), name=name).by(method)

    return quantize_under
