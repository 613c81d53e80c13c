"""Columns of large activations, taken out of a product of 8-bit integers (Dettmers et al., LLM.int8(), arXiv 2208.07339, section 3.2).

A channel is an outlier where its magnitude reaches a threshold on the calibration text; a small dense matrix reads these channels exactly,
and the integer product sees zeros in their place, so that they no longer decide the scale of a token.
Differs from the paper: the set of channels is fixed beforehand instead of found in every batch, which makes results independent of what
else is in the batch; weights of outlier channels keep their own 16 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Options:
    """threshold: magnitude from which a channel is an outlier (6 in the paper, for models of billions of parameters); 0 for `ratio` alone.

    ratio: how many times the median channel's largest magnitude it must reach too.  most: share of the channels at most; the largest stay.
    """

    threshold: float = 6.0
    ratio: float = 4.0
    most: float = 0.05

    def __post_init__(self) -> None:
        if not (self.threshold >= 0 and self.ratio >= 0):
            raise ValueError(f"threshold and ratio are 0 or more; got {self.threshold:g} and {self.ratio:g}")
        if not 0 < self.most <= 0.5:
            raise ValueError(f"the share of outlier channels lies in (0, 0.5]; got {self.most:g}")


def outlier_columns(largest: Tensor, options: Options) -> Tensor:
    """The outlier channels, int64 ascending, from the largest magnitude of each [K]; none of them may be (an empty tensor)."""
    limit = max(options.threshold, options.ratio * float(largest.median()))
    count = min(int((largest >= limit).sum()), math.floor(options.most * len(largest)))
    if count == 0 or float(largest.max()) == 0:
        return torch.empty(0, dtype=torch.int64)
    return torch.argsort(largest, descending=True, stable=True)[:count].sort().values
