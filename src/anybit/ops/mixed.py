"""Products with several formats: matrices of parts (one product a part, results placed or added), and activations of two widths along k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native, reference
from anybit.ops.matmul import Weight, as_rows, matmul, run_native
from anybit.ops.packed import Packed, prepack
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
        together = _rows_together(x, w, acts)
        if together is None:
            results = [matmul(x, part, act=rounded) for part, rounded in zip(parts, acts, strict=True)]
            together = torch.cat(results, -1).index_select(-1, w.places)
        y = together.to(x.dtype)
    else:
        y = torch.zeros(*x.shape[:-1], n, dtype=x.dtype)
        for part, which, rounded in zip(parts, w.members, acts, strict=True):
            y += matmul(x.index_select(-1, which), part, act=rounded)
    return y if bias is None else y + bias.to(x.dtype)


def _rows_together(x: Tensor, w: MixedTensor | MixedPacked, acts: Sequence[TensorFormat | None]) -> Tensor | None:
    """One call for packed parts that take the same integer activations, which are rounded once; None where they are not such."""
    module, integers = native.load(), reference.integer_act(acts[0])
    if module is None or integers is None or not isinstance(w, MixedPacked) or any(act != acts[0] for act in acts):
        return None
    handles = [
        p.handle
        for p in w.parts
        if isinstance(p, Packed) and p.order == "tiles" and p.integer and not p.handle.padded_groups
    ]
    if len(handles) < len(w.parts):
        return None
    rows = as_rows(x)
    out = torch.empty(rows.shape[0], w.shape[0])
    module.matmul_parts(handles, rows.numpy(), integers.group, w.places.numpy(), out.numpy(), integers.levels)
    return out.reshape(*x.shape[:-1], w.shape[0])


def round_two_widths(x: Tensor, act: TensorFormat, wide: int) -> Tensor:
    """x [..., k] with its first `wide` groups of `act` rounded to int8 and the others to `act`: the values, in float32.

    FormatError unless `act` is signed integers with a scale a group of a multiple of 32 columns.
    """
    integers = _two_widths(x.shape[-1], act, wide)
    cut = min(wide * integers.group, x.shape[-1])
    eight = TensorFormat.parse(f"int8/g{integers.group}")
    parts = (reference.round_activations(x[..., :cut], eight), reference.round_activations(x[..., cut:], act))
    return torch.cat([part.float() for part in parts], -1)


def two_width_matmul(x: Tensor, w: Packed, act: TensorFormat, wide: int, bias: Tensor | None = None) -> Tensor:
    """x [..., k] times a packed w [n, k] transposed, plus bias [n] -> float32 [..., n], in one pass over the weights.

    The first `wide` groups of x are rounded to 8 bits and the others to `act` (COMET, arXiv 2410.12168: outlier channels are gathered in
    the first groups); integer sums a group, exact, added in float32. FormatError as `round_two_widths`, and for weights without an
    integer form or with groups of other sizes that are padded.
    """
    integers = _two_widths(x.shape[-1], act, wide)
    if x.shape[-1] != w.k:
        raise FormatError(f"x has {x.shape[-1]} columns, the weight {w.k}")
    padded = w.handle is not None and w.order == "tiles" and bool(w.handle.padded_groups)
    if not w.integer or w.order != "tiles" or padded:
        raise FormatError(
            f"activations of two widths multiply packed integers with groups of a multiple of 32; got {w.format}"
        )
    return run_native(x, w, bias, integers.group, integers.levels, wide)


def _two_widths(k: int, act: TensorFormat, wide: int) -> reference.IntegerActivations:
    integers = reference.integer_act(act)
    if integers is None or not integers.group:
        raise FormatError(
            f"two widths need signed integers with scales of groups of a multiple of 32 columns; got {act}"
        )
    groups = -(-k // integers.group)
    if not 0 <= wide <= groups:
        raise FormatError(f"{wide} of the {groups} groups of x cannot be of 8 bits")
    return integers
