"""Products with several formats: matrices of parts (one product a part, results placed or added), and activations of two widths along k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native, reference
from anybit.ops.matmul import Weight, as_bias, as_rows, exchanges, matmul, run_native
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
    together: Any = None
    """All parts for one call in C, which takes integer activations; None where they are not of rows or not all integers."""
    quick: list[tuple[TensorFormat, Any]] = field(default_factory=list, repr=False)
    """The last activations it was called with and its product in C; empty where there is none."""

    @staticmethod
    def of(w: MixedTensor) -> MixedPacked:
        """Made once, after which `w` may go."""
        parts = tuple(prepack(p) for p in w.parts)
        together, module = None, native.load()
        if module is not None and w.axis == 0 and all(p.order == "tiles" and p.integer for p in parts):
            handles = [p.handle for p in parts]
            if not any(handle.padded_groups for handle in handles):
                together = module.parts(handles, [which.numpy() for which in w.members])
        return MixedPacked(parts, w.axis, w.members, w.places, w.shape, together)


def mixed_matmul(
    x: Tensor,
    w: MixedTensor | MixedPacked,
    bias: Tensor | None = None,
    act: TensorFormat | Sequence[TensorFormat | None] | None = None,
) -> Tensor:
    """x [..., k] times w [n, k] transposed, plus bias [n] -> [..., n] in x's dtype.

    act: how x is rounded, for all parts or for each. Partial sums of columns are added in the order of the parts. FormatError where x,
    the bias or the number of activation formats does not fit.
    """
    # As in `matmul`: what the call before settled is not looked up again.
    if type(w) is MixedPacked and w.quick and type(x) is Tensor and w.quick[0][0] is act:
        done: Tensor | None = w.quick[0][1](x, bias)
        if done is not None:
            return done
    n, k = w.shape
    if x.shape[-1] != k:
        raise FormatError(f"x has {x.shape[-1]} columns, the weight {k}")
    if bias is not None and bias.shape != (n,):
        raise FormatError(f"the bias must have the shape ({n},); got {tuple(bias.shape)}")
    parts: Sequence[Weight] = w.parts
    acts = list(act) if isinstance(act, Sequence) else [act] * len(parts)
    if len(acts) != len(parts):
        raise FormatError(f"{len(acts)} formats of activations cannot serve {len(parts)} parts")
    if w.axis == 0:
        y = _rows_together(x, w, bias, acts)
        if y is not None:
            return y.to(x.dtype)
        results = [matmul(x, part, act=rounded) for part, rounded in zip(parts, acts, strict=True)]
        y = torch.cat(results, -1).index_select(-1, w.places)
    else:
        y = torch.zeros(*x.shape[:-1], n, dtype=x.dtype)
        for part, which, rounded in zip(parts, w.members, acts, strict=True):
            y += matmul(x.index_select(-1, which), part, act=rounded)
    return y if bias is None else y + bias.to(x.dtype)


def _rows_together(
    x: Tensor, w: MixedTensor | MixedPacked, bias: Tensor | None, acts: Sequence[TensorFormat | None]
) -> Tensor | None:
    """One call for packed parts that take the same integer activations, which are rounded once; None where they are not such."""
    act = acts[0]
    integers = reference.integer_act(act)
    if not isinstance(w, MixedPacked) or w.together is None or integers is None or act is None:
        return None
    if any(other != act for other in acts):
        return None
    rows, module = as_rows(x), native.loaded()
    out = torch.empty(rows.shape[0], w.shape[0])
    module.matmul_parts(w.together, rows.numpy(), integers.group, out.numpy(), as_bias(bias), integers.levels)
    if exchanges() and x.dtype is torch.float32:
        w.quick[:] = [(act, module.Quick(Tensor, w.together, integers.group, integers.levels))]
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
