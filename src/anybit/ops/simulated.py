"""One linear layer as machines of different make would compute it: order of additions, split, tensor-parallel ranks and the type of partial
sums become arguments, so that "two GPUs against eight" is a deterministic experiment on one CPU (arXiv 2506.09501).

A configuration cuts k into `ranks` equal parts and each into `splits`. In a segment, blocks of `lanes` neighbouring columns are visited in
`order`; lane l sums its products one after another in float32 and the lanes are added in a binary tree: what a SIMD or tensor
core of that width does. The sum of a segment is rounded to the type of partial sums, and so is every addition of segments, ranks last.
`batch` rows are computed in one call; more rows, more calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from anybit.ops.emulated import Accumulator, emulated_matmul
from anybit.ops.invariant import TreeWeight, invariant_matmul

Order = Literal["ascending", "descending", "interleaved"]
ORDERS: tuple[str, ...] = get_args(Order)
Arithmetic = Literal["16 bits", "layercast", "invariant"]
ARITHMETICS: tuple[str, ...] = get_args(Arithmetic)


@dataclass(frozen=True)
class Configuration:
    """A machine and a run: rows of a call, tensor-parallel ranks, splits of k in a rank, order of blocks, SIMD lanes.

    ValueError for sizes below 1, ranks or lanes that are no powers of two, and an unknown order.
    """

    batch: int = 1
    ranks: int = 1
    splits: int = 1
    order: Order = "ascending"
    lanes: int = 8

    def __post_init__(self) -> None:
        if min(self.batch, self.ranks, self.splits, self.lanes) < 1:
            raise ValueError(f"the sizes of a configuration are 1 or more; got {self}")
        if self.ranks & (self.ranks - 1) or self.lanes & (self.lanes - 1):
            raise ValueError(f"ranks and lanes are powers of two; got {self.ranks} and {self.lanes}")
        if self.order not in ORDERS:
            raise ValueError(f"unknown order {self.order!r}; known: {', '.join(ORDERS)}")

    def segments(self, k: int) -> list[list[tuple[int, int]]]:
        """[first, last) of each segment of each rank; those of a rank follow one another."""
        ranks = [(k * r // self.ranks, k * (r + 1) // self.ranks) for r in range(self.ranks)]
        return [
            [(a + (b - a) * s // self.splits, a + (b - a) * (s + 1) // self.splits) for s in range(self.splits)]
            for a, b in ranks
        ]


def visit(columns: int, configuration: Configuration) -> Tensor:
    """Indices [lanes, steps] of a segment's columns in the order each lane adds them; `columns` itself stands for padding."""
    lanes = configuration.lanes
    steps = -(-columns // lanes)
    blocks = torch.arange(steps)
    if configuration.order == "descending":
        blocks = blocks.flip(0)
    elif configuration.order == "interleaved":
        blocks = torch.cat([blocks[::2], blocks[1::2]])
    index = blocks[None, :] * lanes + torch.arange(lanes)[:, None]
    return index.clamp(max=columns)


def simulated_linear(
    x: Tensor,
    w: Tensor | TreeWeight,
    configuration: Configuration,
    arithmetic: Arithmetic = "16 bits",
    bias: Tensor | None = None,
) -> Tensor:
    """x [m, k] times w [n, k] transposed, plus bias, as that configuration computes it; a pure function of its arguments.

    "16 bits": inputs and weights are bfloat16 values, partial sums and the result bfloat16.  "layercast": bfloat16 weights,
    everything else float32.  "invariant": layercast in the tree of `ops.invariant`, of which ranks and splits are subtrees.
    The result is bfloat16 for "16 bits", else float32. ValueError for an unknown arithmetic and shapes that do not fit.
    """
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"unknown arithmetic {arithmetic!r}; known: {', '.join(ARITHMETICS)}")
    k = w.k if isinstance(w, TreeWeight) else w.shape[-1]
    if x.ndim != 2 or x.shape[1] != k:
        raise ValueError(f"x [m, k] and w [n, k] must share k; got {list(x.shape)} and k = {k}")
    calls = [x[a : a + configuration.batch] for a in range(0, x.shape[0], configuration.batch)]
    if arithmetic == "invariant":
        tree = w if isinstance(w, TreeWeight) else TreeWeight.of(w.bfloat16())
        parts = configuration.ranks * (1 << (configuration.splits - 1).bit_length())
        return torch.cat([invariant_matmul(rows, tree, bias, parts) for rows in calls])
    if isinstance(w, TreeWeight):
        raise ValueError("only the invariant arithmetic takes a weight in leaves")
    partial = torch.bfloat16 if arithmetic == "16 bits" else torch.float32
    values = w.bfloat16().float()
    out = []
    for rows in calls:
        inputs = rows.bfloat16().float() if arithmetic == "16 bits" else rows.float()
        total: Tensor | None = None
        for rank in configuration.segments(k):
            local: Tensor | None = None
            for a, b in rank:
                part = _segment(inputs[:, a:b], values[:, a:b], configuration).to(partial)
                local = part if local is None else local + part
            assert local is not None, "a rank has a segment"
            total = local if total is None else total + local
        assert total is not None, "there is a rank"
        out.append(total if bias is None else total + bias.to(partial))
    return torch.cat(out)


def _segment(x: Tensor, w: Tensor, configuration: Configuration) -> Tensor:
    """float32 [m, n]: lanes sum sequentially, then in a tree."""
    index = visit(x.shape[1], configuration)
    steps = index.shape[1]
    if not steps:
        return x.new_zeros(x.shape[0], w.shape[0])
    index = index.reshape(-1)
    # A column of zeros for lanes without a term: adding it changes nothing.
    a, b = (torch.nn.functional.pad(t, (0, 1))[:, index] for t in (x, w))
    return emulated_matmul(a, b, accumulate=Accumulator("fp32", "tree", steps))
