"""Inputs of layers, rounded while their weights are learned as they will be rounded at run time.

In a training step a share of the elements, drawn anew each time, stays as it is (QDrop: Wei et al., arXiv 2203.05740): weights learned so
are less bound to the roundings that the calibration text happens to have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize.learned import rounded

RoundInputs = Callable[[Tensor], Tensor]
"""Inputs of a layer [..., K] -> what it multiplies, with gradients."""


@dataclass(frozen=True)
class Inputs:
    """act: the format, empty for exact inputs.  drop: share of the elements that stay as they are in a training step, 0 to 1."""

    act: str = ""
    drop: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1:
            raise ValueError(f"the share that is dropped lies between 0 and 1; got {self.drop:g}")
        if self.act:
            TensorFormat.parse(self.act)


def rounding(options: object) -> RoundInputs | None:
    """What options ask for that have those of `Inputs`; None where inputs are exact.

    Without gradients, as a result is judged, nothing is dropped.  Equal calls in equal order give equal values.
    """
    if not isinstance(options, Inputs) or not options.act:
        return None
    fmt, drop = TensorFormat.parse(options.act), options.drop
    generator = torch.Generator().manual_seed(getattr(options, "seed", 0))

    def inputs(x: Tensor) -> Tensor:
        y = rounded(x, fmt)
        if not drop or not torch.is_grad_enabled():
            return y
        return torch.where(torch.rand(x.shape, generator=generator) < drop, x, y)

    return inputs
