"""SmoothQuant (Xiao et al., 2022, arXiv 2211.10438, eq. 4): move the spread of activation channels into the weights.

With s_j = max|x_j|^α / max|w_j|^(1-α), x_j / s_j times w_j s_j is the same product.  The division folds into whatever makes x: the gain
of a norm, or the rows of the preceding linear layer, so that nothing is computed at run time.
Differs from the paper: channels that are zero on either side keep s_j = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """alpha: 0 leaves the activations, 1 moves all their spread into the weights; the paper uses 0.5, 0.75 to 0.9 for models with large
    outliers.  norm, values, down: whether to smooth what norms make (as the paper), the input of the output projection, that of the down
    projection.
    """

    alpha: float = 0.5
    norm: bool = True
    values: bool = False
    down: bool = False

    def __post_init__(self) -> None:
        check_alpha(self.alpha)


def check_alpha(alpha: float) -> None:
    """Raises ValueError outside [0, 1]."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1]; got {alpha}")


def smoothing_scales(act_max: Tensor, weights: Sequence[Tensor], alpha: float = 0.5) -> Tensor:
    """Scales [K] float32 from the activations' absolute maxima [K] and the weights [N_i, K] of all layers that read them.

    alpha: as of `Options`. Raises ValueError outside [0, 1] or for shapes that do not fit.
    """
    check_alpha(alpha)
    for w in weights:
        if w.shape[1] != act_max.shape[0]:
            raise ValueError(f"a weight has {w.shape[1]} input channels, the activations {act_max.shape[0]}")
    weight_max = torch.stack([w.float().abs().amax(0) for w in weights]).amax(0)
    act = act_max.float()
    scale = act.pow(alpha) / weight_max.pow(1 - alpha)
    return torch.where((act > 0) & (weight_max > 0), scale, torch.ones_like(scale))
