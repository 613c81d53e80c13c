"""Gradient-based post-training quantization (Yvinec et al., arXiv 2308.07662): roundings learned by a few hundred steps a block.

The paper finds the choice of data and of weights to matter little, the objective, the degrees of freedom and the optimizer much.  Here:
the error of whole blocks (BRECQ, arXiv 2102.05426), codes and scales both free, Adam; and a start from GPTQ, as floor or ceiling of the
weight alone leaves too little room for correlated inputs.  `reconstruct` is the trainer, GPTQ (or rounding to nearest) the start.

Other members of the family are options: `unit: layer, variable: relaxed, scales: false, start: rtn` is AdaRound (arXiv 2004.10568), with
`unit: block` BRECQ, and `act` rounds the layers' inputs meanwhile, a share of their elements dropped (QDrop, arXiv 2203.05740).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize import check, gptq, obs, rounded_inputs, rtn
from anybit.quantize.reconstruct import Forward, Reconstructed, Settings, Targets, reconstruct
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics
from anybit.tensors import QTensor


@dataclass(frozen=True)
class Options(gptq.Options, Settings, rounded_inputs.Inputs):
    """start: "gptq" or "rtn".  unit: whose outputs are matched, a "block"'s or those of each "layer" by itself, on the inputs that the
    quantized part before makes; the latter needs second moments alone.  The others are those of GPTQ, of `reconstruct.Settings` and of
    `rounded_inputs.Inputs` (with whole blocks).
    """

    start: Literal["gptq", "rtn"] = "gptq"
    unit: Literal["block", "layer"] = "block"

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        rounded_inputs.Inputs.__post_init__(self)
        for name, given, known in (("start", self.start, ("gptq", "rtn")), ("unit", self.unit, ("block", "layer"))):
            if given not in known:
                raise ValueError(f"{name} is {' or '.join(known)}; got {given!r}")
        if self.loss == "kl":
            raise ValueError("a block's outputs are no logits: its loss is mse, l1 or cosine")
        if self.act and self.unit == "layer":
            raise ValueError(
                "inputs are rounded while blocks are learned; second moments of a layer's inputs do not hold them"
            )


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None,
    options: Options | None = None,
    *,
    name: str = "layer",
    factor: obs.Factor | None = None,
) -> Quantized:
    """The start of a weight [N, K], learned already where the unit is a layer; errors as `gptq.quantize` or `rtn.quantize`."""
    options = options or Options()
    if options.start == "rtn":
        done = rtn.quantize(weight, fmt, stats, rtn.Options(options.scale_rule, power=options.power), name=name)
    else:
        done = gptq.quantize(weight, fmt, stats, options, name=name, factor=factor)
    if options.unit == "layer":
        stats = check.statistics(stats, weight.shape[1], "gradient_ptq", name)
        if factor is None:
            factor = obs.factorize(stats.hessian, damping=options.damping, act_order=options.act_order, name=name)
        done = _learned_alone(weight, done, stats, factor, options, name)
    return done.by("gradient_ptq")


def _learned_alone(
    weight: Tensor, start: Quantized, stats: Statistics, factor: obs.Factor, options: Options, name: str
) -> Quantized:
    """A weight learned to answer its inputs as the original does: of squared errors all that counts is H = R Rᵀ, so R stands for them."""
    root = obs.root(factor).float()
    exact = weight.float().masked_fill(factor.dead, 0)
    wanted = exact @ root

    def forward(values: Mapping[str, Tensor], _: Sequence[int]) -> Tensor:
        return values[name] @ root

    parts = {name: (exact if start.unrounded is None else start.unrounded, start.qtensor)}
    done = reconstruct(parts, forward, lambda _: wanted, 1, options, name)
    q = done.weights[name]
    total = rtn.squared_output(exact, stats)
    error = rtn.squared_output(exact - q.dequantize(), stats) / total if total > 0 else 0.0
    details = {**start.report.details, "layer_error_before": done.before, "layer_error_after": done.after}
    return Quantized(q, replace(start.report, relative_error=error, details=details))


def refine(
    parts: Mapping[str, tuple[Tensor, QTensor]],
    forward: Forward,
    targets: Targets,
    windows: int,
    options: Options,
    name: str,
) -> Reconstructed:
    """Learn a block from where `quantize` left its weights; where the unit is a layer they stay, and the block's error is measured."""
    return reconstruct(
        parts, forward, targets, windows, options if options.unit == "block" else replace(options, steps=0), name
    )
