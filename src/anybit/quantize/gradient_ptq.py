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
class Options(gptq.Options):
    """start: "gptq" or "rtn".  The others are those of GPTQ and of `reconstruct.Settings`."""

    start: str = "gptq"
    steps: int = 200
    rate: float = 0.003
    scale_rate: float = 0.001
    batch: int = 4
    optimizer: str = "adam"
    loss: str = "mse"
    rounding: bool = True
    scales: bool = True
    held_out: float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in ("gptq", "rtn"):
            raise ValueError(f"start is gptq or rtn; got {self.start!r}")
        if self.optimizer not in ("adam", "sign", "sgd") or self.loss not in ("mse", "l1"):
            raise ValueError(
                f"the optimizer is adam, sign or sgd and the loss mse or l1; got {self.optimizer!r} and {self.loss!r}"
            )
        self.settings()

    def settings(self) -> Settings:
        """What the trainer takes."""
        return Settings(
            steps=self.steps,
            rate=self.rate,
            scale_rate=self.scale_rate,
            batch=self.batch,
            optimizer=self.optimizer,  # type: ignore[arg-type]
            loss=self.loss,  # type: ignore[arg-type]
            rounding=self.rounding,
            scales=self.scales,
            held_out=self.held_out,
            seed=self.seed,
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
    return reconstruct(parts, forward, targets, windows, options.settings(), name)
