"""AWQ (Lin et al., arXiv 2306.00978): round to nearest after the scaling of `transforms.awq`, each group's range clipped where
that makes the outputs better.

For a group of columns g of a row, the range is shrunk by 0 to 45 % in ten steps; kept is the step of least (w - ŵ)_g H_gg (w - ŵ)_gᵀ, the
mean squared error of what the group adds to the output (the authors measure the same on 512 tokens; here on all, by the second moment).
Differs from the authors' code: queries and keys are clipped too (`clip` off switches it off for all).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize import check, rtn
from anybit.quantize.result import Quantized, Report
from anybit.quantize.statistics import Statistics

FORMAT = "int4/g128+z"


@dataclass(frozen=True)
class Options:
    """clip: search how far each group's range is clipped.  steps, least: ranges tried, evenly between the whole and `least` of it.

    scale_rule: how the scale of a clipped group is found; "absmax" is the authors', "mse" searches it, weighing by the inputs' squares.
    """

    scale_rule: tensors.ScaleRule = "mse"
    clip: bool = True
    steps: int = 10
    least: float = 0.55

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000 or not 0 < self.least <= 1:
            raise ValueError(
                f"1 to 1000 steps down to a share in (0, 1] of the range; got {self.steps} and {self.least:g}"
            )


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None,
    options: Options | None = None,
    *,
    name: str = "layer",
) -> Quantized:
    """Round weight [N, K] to `fmt`, clipped group by group. Raises RecipeError without calibration or for NaN."""
    options = options or Options()
    check.weight(weight, name)
    stats = check.statistics(stats, weight.shape[1], "awq", name)
    w = weight.float()
    importance = stats.second_moment.float()

    def rounding(x: Tensor) -> tensors.QTensor:
        return tensors.quantize(x, fmt, options.scale_rule, importance=importance)

    if options.clip and fmt.scale is not None:
        best, share = _clipped(w, fmt, stats, options, rounding)
    else:
        best, share = rounding(w), 1.0
    return Quantized(best, Report("awq", str(fmt), rtn.relative_error(w, best, stats), {"mean_range": share}))


def _clipped(
    w: Tensor, fmt: TensorFormat, stats: Statistics, options: Options, rounding: Callable[[Tensor], tensors.QTensor]
) -> tuple[tensors.QTensor, float]:
    """The best of the ranges for every group, and the mean share of the range kept."""
    rows, columns = w.shape
    tall, wide = fmt.block[0] or rows, fmt.block[1] or columns
    hessian = stats.hessian.float()
    shares = [1 - i * (1 - options.least) / options.steps for i in range(options.steps)]
    lowest = torch.full(fmt.grid((rows, columns)), float("inf"))
    chosen = torch.ones_like(lowest)
    for share in shares:
        error = w - rounding(_limited(w, fmt, torch.full_like(lowest, share))).dequantize()
        loss = torch.empty(rows, lowest.shape[1])
        for g in range(lowest.shape[1]):
            part = error[:, g * wide : (g + 1) * wide]
            block = hessian[g * wide : (g + 1) * wide, g * wide : (g + 1) * wide]
            loss[:, g] = ((part @ block) * part).sum(1)
        total = torch.stack([band.sum(0) for band in loss.split(tall)])
        better = total < lowest
        lowest = torch.where(better, total, lowest)
        chosen = torch.where(better, torch.full_like(chosen, share), chosen)
    return rounding(_limited(w, fmt, chosen)), float(chosen.mean())


def _limited(w: Tensor, fmt: TensorFormat, share: Tensor) -> Tensor:
    """w with every block limited to that share of its largest magnitude."""
    rows, columns = w.shape
    tall, wide = fmt.block[0] or rows, fmt.block[1] or columns
    limit = torch.empty_like(w)
    for g in range(share.shape[1]):
        part = w[:, g * wide : (g + 1) * wide].abs().amax(1)
        top = torch.stack([band.amax() for band in part.split(tall)]) * share[:, g]
        limit[:, g * wide : (g + 1) * wide] = top.repeat_interleave(tall)[:rows, None]
    return torch.minimum(torch.maximum(w, -limit), limit)
