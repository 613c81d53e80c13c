"""The product with a matrix of several formats: one product a part, results placed (rows) or added (columns)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops.matmul import Weight, matmul
from anybit.ops.packed import prepack
from anybit.tensors.mixed import MixedTensor


@dataclass(frozen=True, eq=False)
class MixedPacked:
    """A `MixedTensor` whose parts are in the kernels' own layout."""

    parts: tuple[Weight, ...]
    axis: int
    members: tuple[Tensor, ...]
    places: Tensor
    shape: tuple[int, int]

    @staticmethod
    def of(w: MixedTensor) -> MixedPacked:
        """Made once, after which `w` may go."""
        return MixedPacked(tuple(prepack(p) for p in w.parts), w.axis, w.members, w.places, w.shape)


def mixed_matmul(
    x: Tensor,
    w: MixedTensor | MixedPacked,
    bias: Tensor | None = None,
    act: TensorFormat | Sequence[TensorFormat | None] | None = None,
) -> Tensor:
    """x [..., k] times w [n, k] transposed, plus bias [n] -> [..., n] in x's dtype.

    act: how x is rounded, for all parts or for each. Partial sums of columns are added in the order of the parts. FormatError where x
    or the number of activation formats does not fit.
    """
    n, k = w.shape
    if x.shape[-1] != k:
        raise FormatError(f"x has {x.shape[-1]} columns, the weight {k}")
    parts: Sequence[Weight] = w.parts
    acts = list(act) if isinstance(act, Sequence) else [act] * len(parts)
    if len(acts) != len(parts):
        raise FormatError(f"{len(acts)} formats of activations cannot serve {len(parts)} parts")
    if w.axis == 0:
        results = [matmul(x, part, act=rounded) for part, rounded in zip(parts, acts, strict=True)]
        y = torch.cat(results, -1).index_select(-1, w.places)
    else:
        y = torch.zeros(*x.shape[:-1], n, dtype=x.dtype)
        for part, which, rounded in zip(parts, w.members, acts, strict=True):
            y += matmul(x.index_select(-1, which), part, act=rounded)
    return y if bias is None else y + bias.to(x.dtype)
