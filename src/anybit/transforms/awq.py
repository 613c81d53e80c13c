"""Activation-aware weight scaling (Lin et al., AWQ, arXiv 2306.00978): weights of strongly driven channels are made larger before they are
rounded, so that they round more finely, and the channel is made smaller by as much.

s_j = mean|x_j|^r, normed so that its extremes are reciprocal; r is searched between 0 (no scaling) and 1.
Differs from the paper: the loss is the squared error of the outputs of the layers that read the channels, tr (W - Ŵ) H (W - Ŵ)ᵀ with the
second moment H of their inputs, which needs no tokens, in place of the error behind the whole block; channels shared by the query heads
of a group (values under grouped attention) share a scale, where the authors' code leaves them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-4


@dataclass(frozen=True)
class Options:
    """steps: exponents tried, 0 to 1 - 1/steps (20 in the paper).  norm, values, down: whether to scale what norms make, the values, what
    the up projection makes.
    """

    steps: int = 20
    norm: bool = True
    values: bool = True
    down: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 1000:
            raise ValueError(f"1 to 1000 exponents can be tried; got {self.steps}")


@dataclass(frozen=True)
class Found:
    """scales: [units], what the weights are multiplied by.  exponent: the r chosen.  ratio: its loss over that of no scaling."""

    scales: Tensor
    exponent: float
    ratio: float


def scales_for(mean_abs: Tensor, exponent: float) -> Tensor:
    """Scales [units] float32 from the mean magnitudes of the channels."""
    scale = mean_abs.float().pow(exponent).clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()


def search(
    mean_abs: Tensor,
    index: Tensor,
    weights: Sequence[Tensor],
    hessian: Tensor,
    rounding: Callable[[Tensor], Tensor],
    steps: int = 20,
) -> Found:
    """The best scales for channels read by several weights.

    mean_abs: [units].  index: [units, members] columns of the weights [N_i, K] that are the channels.  hessian: [K, K] of their inputs.
    rounding: a float32 weight -> its values as quantized.
    """
    best: tuple[float, float, Tensor] | None = None
    first = 0.0
    for step in range(steps):
        scale = scales_for(mean_abs, step / steps)
        columns = torch.ones(hessian.shape[0])
        columns[index.reshape(-1)] = scale[:, None].expand(index.shape).reshape(-1)
        loss = 0.0
        for weight in weights:
            error = weight - rounding(weight * columns) / columns
            loss += float(((error @ hessian) * error).sum(1, dtype=torch.float64).sum())
        if best is None:
            first = loss
        if best is None or loss < best[0]:
            best = loss, step / steps, scale
    assert best is not None, "at least one exponent is tried"
    return Found(best[2], best[1], best[0] / first if first > 0 else 1.0)
