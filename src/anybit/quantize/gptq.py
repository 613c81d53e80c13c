"""GPTQ: round a weight column by column, each error made up for by the columns still to come.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers (arXiv
2210.17323), with static groups and activation order as in the authors' later code: all scales are fitted to the
original weight, then the columns are visited by descending Hessian diagonal, so that groups stay contiguous in storage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import check, obs
from anybit.quantize.grid import Grid
from anybit.quantize.result import Quantized, Report
from anybit.quantize.rtn import squared_output
from anybit.quantize.rule import Power, power_for
from anybit.quantize.statistics import Statistics


@dataclass(frozen=True)
class Options:
    """damping: fraction of the mean Hessian diagonal added to it.  block: columns between two large updates.

    act_order: visit columns by descending Hessian diagonal.  groups: "static" fits all scales to the original weight,
    "dynamic" fits each group's when it is reached, to the compensated weight (only without act_order).
    scale_rule: a rule of `tensors.block_scales`; "mse", "exact" and "four_over_six" weigh errors by the Hessian diagonal.
    power: how e8m0 scales of "absmax" and "gaussian" become powers of two, as of `rtn.Options`.
    sweeps: passes of coordinate descent over the columns afterwards (`obs.sweep`; with static groups).
    """

    damping: float = 0.01
    block: int = 128
    act_order: bool = True
    groups: Literal["static", "dynamic"] = "static"
    scale_rule: tensors.ScaleRule = "mse"
    power: Power = ""
    sweeps: int = 0


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None,
    options: Options | None = None,
    *,
    name: str = "layer",
    factor: obs.Factor | None = None,
) -> Quantized:
    """Quantize weight [N, K] (any float dtype, unchanged) to `fmt` with the statistics of its inputs.

    Arithmetic in float32, or float64 where weight or Hessian are. Columns that calibration never excited become zero.
    `factor`: the factored Hessian where the caller has it already (several formats or weights with the same inputs).
    Raises RecipeError without calibration, for NaN, or for a Hessian that no damping makes positive definite.
    """
    options = options or Options()
    check.weight(weight, name)
    stats = check.statistics(stats, weight.shape[1], "gptq", name)
    if options.groups == "dynamic" and options.act_order:
        raise RecipeError(f"{name}: dynamic groups need act_order off; with it, use static groups")
    if options.groups == "dynamic" and options.sweeps:
        raise RecipeError(f"{name}: sweeps go over codes whose scales are fixed; use static groups")
    if options.block < 1:
        raise RecipeError(f"{name}: the block of GPTQ is 1 column or more, got {options.block}")
    if options.sweeps < 0:
        raise RecipeError(f"{name}: sweeps are 0 or more, got {options.sweeps}")
    hessian = stats.hessian
    if factor is None:
        factor = obs.factorize(hessian, damping=options.damping, act_order=options.act_order, name=name)
    dtype = torch.promote_types(torch.promote_types(weight.dtype, hessian.dtype), torch.float32)
    start = weight.to(dtype, copy=True)
    start[:, factor.dead] = 0
    importance = hessian.diagonal().float()
    scale: Tensor | None
    zero: Tensor | None
    tensor_scale: Tensor | None
    grid: Grid | None = None
    if fmt.scale is None:
        scale = zero = tensor_scale = None
        grid = Grid(fmt, (start.shape[0], start.shape[1]), torch.ones(1, 1), None, dtype)
        done = obs.propagate(start, factor, grid.round, block=options.block)
    elif options.groups == "static":
        scale, zero, tensor_scale = _scales(start, fmt, options, importance)
        grid = Grid(fmt, (start.shape[0], start.shape[1]), effective(scale, tensor_scale), zero, dtype)
        done = obs.propagate(start, factor, grid.round, block=options.block)
    else:
        done, scale, zero, tensor_scale = _dynamic(start, fmt, factor, importance, options)
    if grid is not None and options.sweeps:
        done = obs.sweep(start, done, hessian, factor, grid.round, times=options.sweeps, block=options.block)
    q = tensors.encode(done.values.float(), fmt, scale, zero, tensor_scale)
    # The loop's loss is the error in the damped Hessian; without what damping added, it is the error in the Hessian itself.
    added = factor.added * (start - done.values)[:, ~factor.dead].square().sum(dtype=torch.float64)
    error = max(0.0, float(done.loss.sum(dtype=torch.float64) - added))
    total = squared_output(start, stats)
    details = {"damping": factor.damping, "escalations": factor.escalations, "dead_columns": int(factor.dead.sum())}
    report = Report("gptq", str(fmt), error / total if total > 0 else 0.0, details)
    return Quantized(q, report, done.unrounded.float())


def _scales(
    weight: Tensor, fmt: TensorFormat, options: Options, importance: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    return tensors.block_scales(weight.float(), fmt, options.scale_rule, importance, power_for(options.power, fmt))


def effective(scale: Tensor, tensor_scale: Tensor | None) -> Tensor:
    """Block scales with the tensor scale multiplied in."""
    return scale if tensor_scale is None else scale * tensor_scale


def _dynamic(
    start: Tensor, fmt: TensorFormat, factor: obs.Factor, importance: Tensor, options: Options
) -> tuple[obs.Propagated, Tensor, Tensor | None, None]:
    """Scales fitted to each group's compensated weights; a tensor scale, which needs all of them at once, stays
    static.
    """
    columns = start.shape[1]
    group = fmt.block[1] or columns
    scale, zero, tensor_scale = _scales(start, fmt, options, importance)
    if tensor_scale is not None:
        raise RecipeError(f"{fmt} has a scale of the whole tensor, which needs static groups")
    scale, zero = scale.clone(), None if zero is None else zero.clone()
    grids: dict[int, Grid] = {}

    def fit(column: int, now: Tensor) -> None:
        index = column // group
        s, z, _ = _scales(now, fmt, options, importance[column : column + now.shape[1]])
        scale[:, index : index + 1] = s
        if zero is not None and z is not None:
            zero[:, index : index + 1] = z
        grids[index] = Grid(fmt, (now.shape[0], now.shape[1]), s, z, start.dtype)

    def round_column(column: int, values: Tensor) -> Tensor:
        return grids[column // group].round(column % group, values)

    done = obs.propagate(start, factor, round_column, block=options.block, group=group, start_group=fit)
    return done, scale, zero, None


def under(
    method: str, inner: Callable[..., Quantized] = quantize, defaults: Options | None = None
) -> Callable[..., Quantized]:
    """`inner` as a step of another method, which the report names: transforms come before it, or learning behind it.

    defaults: what stands for options that are not given; None leaves that to `inner`.
    """

    def quantize_under(
        weight: Tensor,
        fmt: TensorFormat,
        stats: Statistics | None,
        options: Options | None = None,
        *,
        name: str = "layer",
        factor: obs.Factor | None = None,
    ) -> Quantized:
        return inner(weight, fmt, stats, options or defaults, name=name, factor=factor).by(method)

    return quantize_under
