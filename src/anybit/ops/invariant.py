"""Products whose bits do not depend on how the work is cut (LayerCast, arXiv 2506.09501; the reduction tree of arXiv 2511.17826).

layercast  Weights stay in 16 bits, inputs, products and sums are float32. It makes differences between machines rare, not impossible.
invariant  k is cut into leaves of 256. A leaf is one float32 dot product of fixed order; leaves are added, in float32, in a binary
           tree whose shape depends on k only: neighbours first, and a half without partner goes up unchanged. Any part of the work
           that is a whole subtree (a split of k, a tensor-parallel rank) can be computed elsewhere and joined to the same bits.

Both use the native kernels where they are built: every row of x and every output has sums of its own there, in an order that depends on
k alone, so neither the batch nor the number of threads shows; the tree is built on the way, from sums that never leave the cache.
Without them torch computes, and the guarantee holds for one batch size only; `invariant_matmul` then multiplies row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor

from anybit.ops import native, reference
from anybit.ops.packed import Packed, prepack
from anybit.tensors import QTensor

Determinism = Literal["none", "layercast", "invariant"]
DETERMINISM: tuple[str, ...] = get_args(Determinism)

LEAF = 256
"""Columns of a leaf of the tree."""

_SIXTEEN_BITS = ("bf16", "fp16")


def layercast_matmul(x: Tensor, w: QTensor | Tensor | Packed, bias: Tensor | None = None) -> Tensor:
    """x [..., k] in float32 times w [n, k] of 16 bits -> float32 [..., n]. ValueError for wider and narrower weights."""
    if isinstance(w, Tensor) and w.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"layercast keeps weights in 16 bits: bfloat16 or float16; got {w.dtype}")
    if not isinstance(w, Tensor) and w.format is not None and str(w.format) not in _SIXTEEN_BITS:
        raise ValueError(f"layercast keeps weights in 16 bits: bf16 or fp16; got {w.format}")
    packed = w if isinstance(w, Packed) else prepack(w)
    packed.refuse_kept("layercast")
    if packed.handle is not None and packed.handle.kind not in _SIXTEEN_BITS:
        raise ValueError(f"layercast keeps weights in 16 bits: bf16 or fp16; got a packed {packed.handle.kind}")
    return _product(x.detach().float(), packed, bias)


def _product(x: Tensor, w: Packed, bias: Tensor | None) -> Tensor:
    """float32 x [..., k] times a packed weight, sums in an order that depends on k only."""
    rows = x.reshape(prod(x.shape[:-1]), w.k).contiguous()
    module = native.load()
    out = torch.empty(rows.shape[0], w.n)
    b = None if bias is None else bias.detach().float().contiguous()
    if module is not None and w.handle is not None:
        module.matmul(w.handle, rows.numpy(), -1, out.numpy(), None if b is None else b.numpy(), one_order=True)
    else:
        assert w.source is not None, "a weight without a kernel handle keeps its source"
        dense = reference.dense(w.source, torch.float32)
        for row, to in zip(rows, out, strict=True):
            to.copy_(torch.mv(dense, row) if b is None else torch.mv(dense, row) + b)
    return out.reshape(*x.shape[:-1], w.n)


@dataclass(frozen=True)
class TreeWeight:
    """A weight [n, k] packed for `invariant_matmul`; it takes the bytes of its elements."""

    n: int
    k: int
    packed: Packed

    @classmethod
    def of(cls, w: QTensor | Tensor | Packed) -> TreeWeight:
        """Elements stay as they are; quantized weights whose groups do not divide a leaf become float32 (ValueError where packed)."""
        packed = w if isinstance(w, Packed) else prepack(w)
        packed.refuse_kept("a tree")
        if packed.handle is not None and not packed.handle.has_tree:
            if not isinstance(w, QTensor):
                raise ValueError(
                    f"the groups of a packed {packed.format} do not divide the {LEAF} columns of a leaf; give the QTensor"
                )
            packed = prepack(w.dequantize(torch.float32))
        return cls(packed.n, packed.k, packed)

    @property
    def leaves(self) -> int:
        """Leaves of the tree: `LEAF` columns each, the last one perhaps fewer."""
        return -(-self.k // LEAF)


def partial_product(x: Tensor, w: TreeWeight, leaves: range) -> Tensor | None:
    """float32 x [m, k] times these neighbouring leaves, added in their own tree -> [m, n]; None where there are none."""
    if not leaves:
        return None
    module, rows = native.load(), x.contiguous()
    if module is not None and w.packed.handle is not None:
        out = torch.empty(rows.shape[0], w.n)
        module.tree_matmul(w.packed.handle, rows.numpy(), leaves.start, leaves.stop, out.numpy())
        return out
    assert w.packed.source is not None, "a weight without a kernel handle keeps its source"
    dense = reference.dense(w.packed.source, torch.float32)
    cuts = [slice(i * LEAF, (i + 1) * LEAF) for i in leaves]
    sums: list[Tensor | None] = [torch.stack([torch.mv(dense[:, c], row[c]) for row in rows]) for c in cuts]
    return subtree(sums + [None] * ((1 << (len(sums) - 1).bit_length()) - len(sums)))


def subtree(nodes: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of a power of two of neighbouring nodes in tree order; None stands for a node without leaves and is skipped."""
    level = list(nodes)
    if not level or len(level) & (len(level) - 1):
        raise ValueError(f"a subtree has a power of two of nodes; got {len(level)}")
    while len(level) > 1:
        level = [_join(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def _join(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    # Skipped, not added as zeros: 0 + -0 is 0.
    return left if right is None else right if left is None else left + right


def partition(leaves: int, parts: int) -> list[range]:
    """The leaves of each of `parts` equal subtrees; the last ones may have none. ValueError unless parts is a power of two."""
    if parts < 1 or parts & (parts - 1):
        raise ValueError(f"a tree is cut into a power of two of parts; got {parts}")
    whole = 1 << max(leaves - 1, 0).bit_length()
    size = max(whole // parts, 1)
    return [range(min(p * size, leaves), min((p + 1) * size, leaves)) for p in range(parts)]


def invariant_matmul(
    x: Tensor, w: QTensor | Tensor | Packed | TreeWeight, bias: Tensor | None = None, parts: int = 1
) -> Tensor:
    """x [..., k] times w [n, k] transposed -> float32 [..., n], the same bits for every batch, thread count and number of `parts`.

    parts: subtrees that are computed apart and then joined, as tensor-parallel ranks or splits of k do (a power of two).
    """
    tree = w if isinstance(w, TreeWeight) else TreeWeight.of(w)
    if x.shape[-1] != tree.k:
        raise ValueError(f"x has {x.shape[-1]} columns, the weight {tree.k}")
    rows = x.detach().float().reshape(prod(x.shape[:-1]), tree.k)
    total = subtree([partial_product(rows, tree, owned) for owned in partition(tree.leaves, parts)])
    y = rows.new_zeros(rows.shape[0], tree.n) if total is None else total
    y = y if bias is None else y + bias.detach().float()
    return y.reshape(*x.shape[:-1], tree.n)
