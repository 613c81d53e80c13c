"""Key channels in the order of their size, so that outliers share blocks with outliers (arXiv 2403.20137).

A block of a key cache has one exponent; one large channel costs its neighbours their bits.  Key outliers sit in channels whose rows of W_k
are large, and q·k does not change when the channels of both are put into another order, so the rows of W_k and W_q are sorted beforehand.
RoPE turns channels in pairs, by an angle of each pair: pairs are sorted as pairs, and their angles with them ("pairs", free of cost at run
time); or rotated queries and keys are put into order one by one when they enter the cache ("after").  Channels that RoPE leaves alone are
sorted among themselves.  With norms of queries and keys, whose gains all heads share, the heads of a layer have one order.
Differs from the paper: the size of a channel is that of its row with the gain of the norm before, and where keys are normed, its gain;
values can be sorted too, which needs nothing at run time in any model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.transforms.order import descending

MODES = ("pairs", "after")


@dataclass(frozen=True)
class Options:
    """mode: "pairs" or "after", as the module says.  keys, values: what is sorted."""

    mode: str = "pairs"
    keys: bool = True
    values: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"keys are sorted by {' or '.join(MODES)}; got {self.mode!r}")
        if not (self.keys or self.values):
            raise ValueError("either keys or values are to be sorted")


def unit_sizes(weight: Tensor, bias: Tensor | None, gain: Tensor | None, index: Tensor) -> Tensor:
    """[units] the root of the summed squares of the rows index [units, members] of a weight [N, K], float64.

    bias [N] counts as one more column; gain [K] is that of the norm before.
    """
    rows = weight.double() if gain is None else weight.double() * gain.double()
    squares = rows.square().sum(1)
    squares = squares if bias is None else squares + bias.double().square()
    return squares[index].sum(1).sqrt()


def sorted_channels(pairs: Tensor, alone: Tensor) -> Tensor:
    """[2 pairs + alone] the channels of a head, members of a pair side by side, by their sizes [pairs] and [alone]; those of RoPE first."""
    half = len(pairs)
    order = descending(pairs)
    return torch.cat([torch.stack([order, order + half], 1).reshape(-1), 2 * half + descending(alone)])
