"""Residual channels (ARCQuant, arXiv 2601.07475): where activations are rounded to 4 bits, the largest channels get what rounding left over
as channels of their own, rounded once more.

Two steps of 4 bits err as little as one of 8, and the product stays one of 4-bit blocks: y = Q(x) Wᵀ + Q(x - Q(x))_o W_oᵀ with the codes of
the weight columns o copied.  Channels count as large from an eighth of the layer's largest magnitude on (the three exponent bits between
formats of 4 and 8 bits, section 3 of the paper).
Differs from the paper: whole blocks are taken, in their places, rather than single channels moved to the end.  `permute` with the order
"sorted" before it (as `arcquant` has it) puts large channels into blocks of their own wherever the model allows it for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.formats import TensorFormat


@dataclass(frozen=True)
class Options:
    """share: of the largest magnitude, from which on a channel is large (1/8 in the paper).  block: channels sharing a scale (16 in NVFP4).

    most: share of the channels taken at most; the blocks of the largest channels come first.
    """

    share: float = 0.125
    block: int = 16
    most: float = 0.125

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 < self.most <= 1:
            raise ValueError(f"shares lie in (0, 1]; got {self.share:g} and {self.most:g}")
        if self.block < 1:
            raise ValueError(f"a block holds 1 channel or more; got {self.block}")

    def stores(self, fmt: TensorFormat, name: str) -> None:
        """RecipeError where copying whole blocks of channels would cut the blocks that share a scale."""
        wide = fmt.block[1]
        if wide and self.block % wide:
            raise RecipeError(
                f"residual: blocks of {self.block} channels are copied, which cuts the groups of {fmt} ({name}); "
                "choose formats with smaller groups or rows, or another block size"
            )


def residual_columns(largest: Tensor, options: Options) -> Tensor:
    """The channels with a residual, int64 ascending, in whole blocks, from the largest magnitude of each [K]; empty where all are zero.

    A last block that is not whole has none.
    """
    whole = len(largest) // options.block
    top = float(largest.max())
    if whole == 0 or top == 0:
        return torch.empty(0, dtype=torch.int64)
    each = largest[: whole * options.block].reshape(whole, options.block).amax(1)
    count = min(int((each >= options.share * top).sum()), max(1, int(options.most * whole)))
    chosen = torch.argsort(each, descending=True, stable=True)[:count].sort().values
    return (chosen[:, None] * options.block + torch.arange(options.block)).reshape(-1)
