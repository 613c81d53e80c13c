"""The order of channels: channels of similar weight in the loss stand together, so that the groups that share a scale hold their like.

With groups of consecutive input channels one large channel decides the scale of all its neighbours. Sorting by the mean square of what
flows through a channel puts those that matter into groups of their own (GPTQ's activation order visits them first; here they are stored
so, at no cost at run time).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """residual, values, down: whether to sort the residual stream, the values of each head, the channels of the gated MLP."""

    residual: bool = True
    values: bool = True
    down: bool = True


def descending(importance: Tensor) -> Tensor:
    """The order [units] int64 that sorts importance [units] from large to small; equal ones stay as they are."""
    return torch.argsort(importance, descending=True, stable=True)
