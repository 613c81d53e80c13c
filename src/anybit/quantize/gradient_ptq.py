"""Gradient-based post-training quantization (Yvinec et al., arXiv 2308.07662): roundings learned by a few hundred steps a block.

The paper finds the choice of data and of weights to matter little, the objective, the degrees of freedom and the optimizer much.  Here:
the error of whole blocks (BRECQ, arXiv 2102.05426), codes and scales both free, Adam; and a start from GPTQ, as floor or ceiling of the
weight alone leaves too little room for correlated inputs.  `reconstruct` is the trainer, GPTQ (or rounding to nearest) the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize import gptq, obs, rtn
from anybit.quantize.reconstruct import Forward, Reconstructed, Settings, Targets, reconstruct
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics
from anybit.tensors import QTensor


@dataclass(frozen=True)
class Options(gptq.Options, Settings):
    """start: "gptq" or "rtn".  The others are those of GPTQ and of `reconstruct.Settings`."""

    start: str = "gptq"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in ("gptq", "rtn"):
            raise ValueError(f"start is gptq or rtn; got {self.start!r}")
        if self.loss == "kl":
            raise ValueError("a block's outputs are no logits: its loss is mse or l1")


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None,
    options: Options | None = None,
    *,
    name: str = "layer",
    factor: obs.Factor | None = None,
) -> Quantized:
    """The start of a weight [N, K]; errors as `gptq.quantize` or `rtn.quantize`."""
    options = options or Options()
    if options.start == "rtn":
        done = rtn.quantize(weight, fmt, stats, rtn.Options(options.scale_rule, power=options.power), name=name)
    else:
        done = gptq.quantize(weight, fmt, stats, options, name=name, factor=factor)
    return done.by("gradient_ptq")


def refine(
    parts: Mapping[str, tuple[Tensor, QTensor]],
    forward: Forward,
    targets: Targets,
    windows: int,
    options: Options,
    name: str,
) -> Reconstructed:
    """Learn a block from where `quantize` left its weights."""
    return reconstruct(parts, forward, targets, windows, options, name)
