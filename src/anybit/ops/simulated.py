"""One linear layer as machines of different make would compute it: order of additions, split, tensor-parallel ranks and the type of partial
sums become arguments, so that "two GPUs against eight" is a deterministic experiment on one CPU (arXiv 2506.09501).

A configuration cuts k into `ranks` equal parts and each into `splits`. In a segment, blocks of `lanes` neighbouring columns are visited in
`order`; lane l sums its products one after another in float32 and the lanes are added in a binary tree: what a SIMD or tensor
core of that width does. The sum of a segment is rounded to the type of partial sums, and so is every addition of segments, ranks last.
`batch` rows are computed in one call of a real kernel, the one of the tree; emulated products compute every row by itself.
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


@dataclass(frozen=True)
class SimulatedWeight:
    """A weight [n, k] of bfloat16 values as a configuration reads it, for use again: rank -> segment -> float32 [n, lanes * steps]."""

    n: int
    k: int
    configuration: Configuration
    ranks: tuple[tuple[Tensor, ...], ...]

    @classmethod
    def of(cls, w: Tensor, configuration: Configuration) -> SimulatedWeight:
        """w [n, k] rounded to bfloat16."""
        values = w.bfloat16().float()
        ranks = configuration.segments(w.shape[1])
        parts = tuple(tuple(_visited(values[:, a:b], configuration) for a, b in rank) for rank in ranks)
        return cls(w.shape[0], w.shape[1], configuration, parts)


def simulated_linear(
    x: Tensor,
    w: Tensor | TreeWeight | SimulatedWeight,
    configuration: Configuration,
    arithmetic: Arithmetic = "16 bits",
    bias: Tensor | None = None,
) -> Tensor:
    """x [m, k] times w [n, k] transposed, plus bias, as that configuration computes it; a pure function of its arguments.

    "16 bits": inputs and weights are bfloat16 values, partial sums and the result bfloat16.  "layercast": bfloat16 weights,
    everything else float32.  "invariant": layercast in the tree of `ops.invariant`, of which ranks and splits are subtrees.
    The result is bfloat16 for "16 bits", else float32. ValueError for an unknown arithmetic, and for shapes or weights that do not fit.
    """
    if arithmetic not in ARITHMETICS:
        raise ValueError(f"unknown arithmetic {arithmetic!r}; known: {', '.join(ARITHMETICS)}")
    if isinstance(w, Tensor) and w.ndim != 2:
        raise ValueError(f"a weight is [n, k]; got {list(w.shape)}")
    k = w.shape[-1] if isinstance(w, Tensor) else w.k
    if x.ndim != 2 or x.shape[1] != k:
        raise ValueError(f"x [m, k] and w [n, k] must share k; got {list(x.shape)} and k = {k}")
    if arithmetic == "invariant":
        if isinstance(w, SimulatedWeight):
            raise ValueError(
                "the invariant arithmetic takes a weight in leaves, not one in the order of a configuration"
            )
        tree = w if isinstance(w, TreeWeight) else TreeWeight.of(w.bfloat16())
        parts = configuration.ranks * (1 << (configuration.splits - 1).bit_length())
        calls = [x[a : a + configuration.batch] for a in range(0, max(1, x.shape[0]), configuration.batch)]
        return torch.cat([invariant_matmul(rows, tree, bias, parts) for rows in calls])
    if isinstance(w, TreeWeight):
        raise ValueError("only the invariant arithmetic takes a weight in leaves")
    weight = w if isinstance(w, SimulatedWeight) else SimulatedWeight.of(w, configuration)
    if weight.configuration != configuration:
        raise ValueError(f"the weight is in the order of {weight.configuration}; got {configuration}")
    partial = torch.bfloat16 if arithmetic == "16 bits" else torch.float32
    inputs = x.bfloat16().float() if arithmetic == "16 bits" else x.float()
    # One call for all rows, whatever the batch: emulated products compute every row by itself.
    total: Tensor | None = None
    for rank, segments in zip(configuration.segments(k), weight.ranks, strict=True):
        local: Tensor | None = None
        for (a, b), values in zip(rank, segments, strict=True):
            part = _segment(_visited(inputs[:, a:b], configuration), values, configuration).to(partial)
            local = part if local is None else local + part
        assert local is not None, "a rank has a segment"
        total = local if total is None else total + local
    assert total is not None, "there is a rank"
    return total if bias is None else total + bias.to(partial)


def _visited(columns: Tensor, configuration: Configuration) -> Tensor:
    """Columns [rows, segment] in the order of `visit`, [rows, lanes * steps]."""
    index = visit(columns.shape[1], configuration).reshape(-1)
    # A column of zeros for lanes without a term: adding it changes nothing.
    return torch.nn.functional.pad(columns, (0, 1))[:, index]


def _segment(x: Tensor, w: Tensor, configuration: Configuration) -> Tensor:
    """float32 [m, n] of visited columns: lanes sum sequentially, then in a tree."""
    steps = x.shape[1] // configuration.lanes
    if not steps:
        return x.new_zeros(x.shape[0], w.shape[0])
    return emulated_matmul(x, w, accumulate=Accumulator("fp32", "tree", steps))
