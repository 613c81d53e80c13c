"""Products of bit planes: W1 to W8 x A1 to A8 as sums of one-bit products, each a logical operation and a count of bits.

Of rows of digits x and w (bits 0 and 1, or signs -1 and 1), stored as bits, over the K columns of a group:

    both bits     sum x w = popcount(x & w)
    both signs    sum x w = K - 2 popcount(x ^ w)                                       (arXiv 2409.17870)
    one of each   sum x w = 2 popcount(x & w) - popcount(of the one that is bits)

    sum over columns of X W = sum over planes i, j of weight_i weight_j sum x_i w_j, and the offsets times sums of rows

so n x m planes cost n m such products whatever the rule of signs, and every one is exact. Bits are counted by compiled code where the
groups are whole lines of 512 columns, else in numpy, one row of x at a time (which is what the compiled code is tested against).
`ops.prepack(w, "bits")` is a whole product of its own, for integers with signed activations of 2 bits and more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.ops.dispatch import Kernel, Problem, costs
from anybit.ops.reference import integer_act
from anybit.tensors import QTensor, quantize
from anybit.tensors.bitplanes import BitPlanes, from_qtensor, planes_of

_LINE = 8
"""Words of 64 bits that compiled code takes at once."""
Words = NDArray[np.uint64]
Counts = NDArray[np.int64]


def plane_products(x: BitPlanes, w: BitPlanes) -> Tensor:
    """Sums of products of digits: int64 [planes of x, planes of w, groups, rows of x, rows of w].

    FormatError unless both have the same columns in the same groups.
    """
    _check(x, w)
    a, b = _words(x), _words(w)
    signs = (x.rule == "bipolar", w.rule == "bipolar")
    counts = pair_counts(a, b, exclusive=all(signs))
    if any(signs):  # in place: many rows of one-bit products are little more than these passes
        counts *= -2 if all(signs) else 2
        if all(signs):
            counts += _lengths(x)[:, None, None]
        else:
            counts -= _count(b)[None, :, :, None, :] if signs[0] else _count(a)[:, None, :, :, None]
    return torch.from_numpy(counts)


def pair_counts(a: Words, b: Words, exclusive: bool, compiled: bool = True) -> Counts:
    """How many bits rows have in common, or (exclusive) only one of them has.

    a [planes of x, rows of x, groups, words], b [planes of w, rows of w, groups, words] -> int64 [planes of x, planes of w, groups,
    rows of x, rows of w]. compiled: in native code where it takes such groups, with the same counts.
    """
    (n, rows, groups, words), (m, columns) = a.shape, b.shape[:2]
    if compiled and words and words % _LINE == 0 and native.load() is not None:
        found = np.empty((groups, n * rows, m * columns), np.int32)
        left, right = (_aligned(side.reshape(len(side) * side.shape[1], groups, words)) for side in (a, b))
        native.loaded().count_pairs(left, right, exclusive, found)
        apart = found.reshape(groups, n, rows, m, columns).transpose(1, 3, 0, 2, 4)
        return np.ascontiguousarray(apart, np.int64)
    out = np.empty((n, m, groups, rows, columns), np.int64)
    for i, j, row in np.ndindex(n, m, rows):
        out[i, j, :, row] = _count(a[i, row] ^ b[j] if exclusive else a[i, row] & b[j])
    return out


def _aligned(words: Words) -> Words:
    """The same words where a line of them does not straddle two of the cache."""
    if words.ctypes.data % 64 == 0:
        return words
    return torch.from_numpy(words.view(np.int64)).clone().numpy().view(np.uint64)


def grouped_product(x: BitPlanes, w: BitPlanes) -> Tensor:
    """Sums of products of values over the columns of each group: int64 [groups, rows of x, rows of w]; float64 where planes have scales.

    FormatError as `plane_products`, and for an offset beside scales, which would have no unit.
    """
    products = plane_products(x, w)
    for side in (x, w):
        if side.scale is not None and side.offset:
            raise FormatError(f"planes with scales of their own cannot have an offset as well; got {side.offset}")
    if x.scale is None and w.scale is None:
        total = torch.zeros_like(products[0, 0])
        for i, j in np.ndindex(x.bits, w.bits):
            total.add_(products[i, j], alpha=int(x.weights[i] * w.weights[j]))
        if x.offset or w.offset:
            lengths = torch.from_numpy(_lengths(x))[:, None, None]
            inner = replace(x, offset=0), replace(w, offset=0)
            total = total + w.offset * sums(inner[0]).T[:, :, None] + x.offset * sums(inner[1]).T[:, None, :]
            total = total + x.offset * w.offset * lengths
        return total
    a, b = _factors(x), _factors(w)
    return torch.einsum("img,jng,ijgmn->gmn", a, b, products.double())


def bitserial_matmul(x: BitPlanes, w: BitPlanes) -> Tensor:
    """The product of the values, [rows of x, rows of w]: exact int64; float64 where planes have scales."""
    product = grouped_product(x, w)
    return product[0] if len(product) == 1 else product.sum(0)


def bitserial_linear(x: Tensor, w: QTensor, act: TensorFormat, bias: Tensor | None = None) -> Tensor:
    """x [..., k] floating, rounded to `act`, times w [n, k] transposed, plus bias [n] -> float32 [..., n].

    Integer sums over each group, scaled and corrected for zero points in float64 (arXiv 2408.08554; groups as arXiv 2508.04405):

        y = sum over groups s_x s_w (P - z_x sum w - z_w sum x + K z_x z_w)

    FormatError where `accepts` gives a reason.
    """
    refused = reason(act, w.format, w.shape[-1])
    if refused is not None:
        raise FormatError(f"bit planes cannot multiply x as {act} with {w.format}: {refused}")
    n, k = w.shape
    if integer_act(act) is not None:
        act = replace(act, scale=formats.get("fp32"))  # as the reference product takes them
    given = quantize(x.detach().reshape(-1, k).float(), act)
    group = _common_group(act, w.format, k)
    a, b = from_qtensor(given, group), from_qtensor(w, group)
    products = grouped_product(a, b).double()
    zero_x, zero_w = _parameters(given.zeros(), given, a), _parameters(w.zeros(), w, b)
    if zero_x is not None:
        products = products - zero_x[:, :, None] * sums(b).T.double()[:, None, :]
    if zero_w is not None:
        products = products - zero_w[:, None, :] * sums(a).T.double()[:, :, None]
    if zero_x is not None and zero_w is not None:
        products = products + torch.from_numpy(_lengths(a))[:, None, None] * zero_x[:, :, None] * zero_w[:, None, :]
    scale_x, scale_w = _parameters(given.scales(), given, a), _parameters(w.scales(), w, b)
    assert scale_x is not None and scale_w is not None, "scales are ones where there are none"
    y = (products * scale_x[:, :, None] * scale_w[:, None, :]).sum(0)
    y = y if bias is None else y + bias.double()
    return y.float().reshape(*x.shape[:-1], n)


def sums(planes: BitPlanes) -> Tensor:
    """Sums of the values of each row over the columns of each group, offset included: int64 [rows, groups], from counts of bits alone."""
    counts = torch.from_numpy(np.bitwise_count(_words(planes)).sum(-1, dtype=np.int64))
    lengths = torch.from_numpy(_lengths(planes))
    if planes.rule == "bipolar":
        counts = 2 * counts - lengths
    if planes.scale is not None:
        raise FormatError("sums of integers are asked for; these planes have scales of their own")
    return (counts * torch.tensor(planes.weights)[:, None, None]).sum(0) + planes.offset * lengths


def reason(act: TensorFormat | None, weights: TensorFormat, k: int) -> str | None:
    """Why bit planes do not multiply such operands; None where they do."""
    if act is None:
        return "activations must be rounded to at most 8 bits"
    for what, fmt in (("activations", act), ("weights", weights)):
        if fmt.bits > 8:
            return f"{what} of {fmt.bits} bits are more than 8 planes"
        try:
            planes_of(fmt.element)
        except FormatError as error:
            return str(error)
    if act.scale is not None and act.block[0] != 1:
        return f"{act} has scales over several rows of x, which would make rows depend on each other"
    try:
        _common_group(act, weights, k)
    except FormatError as error:
        return str(error)
    return None


def _common_group(act: TensorFormat, weights: TensorFormat, k: int) -> int:
    """The narrower of both groups, 0 for whole rows."""
    wide = [fmt.block[1] if fmt.block[1] and fmt.block[1] < k else 0 for fmt in (act, weights)]
    least = min((g for g in wide if g), default=0)
    if any(g % least for g in wide if g):
        raise FormatError(f"groups of {wide[0]} activations and {wide[1]} weights do not lie in one another")
    return least


def _parameters(grid: Tensor | None, q: QTensor, planes: BitPlanes) -> Tensor | None:
    """Scales or zero points of a tensor as float64 [groups of its planes, rows]."""
    if grid is None:
        return None
    high, wide = q.format.block
    rows = torch.arange(planes.rows) // high if high else torch.zeros(planes.rows, dtype=torch.long)
    columns = torch.arange(planes.groups) * planes.group
    groups = columns // wide if wide else torch.zeros(planes.groups, dtype=torch.long)
    return grid.double()[rows][:, groups].T


def _check(x: BitPlanes, w: BitPlanes) -> None:
    if (x.cols, x.groups, x.words.shape[3]) != (w.cols, w.groups, w.words.shape[3]) or x.group != w.group:
        raise FormatError(
            f"bit planes of {x.cols} columns in groups of {x.group or x.cols} cannot be multiplied with those of "
            f"{w.cols} columns in groups of {w.group or w.cols}"
        )


def _words(planes: BitPlanes) -> Words:
    return np.ascontiguousarray(planes.words.cpu().numpy()).view(np.uint64)


def _count(words: Words) -> Counts:
    """Bits set in the words of a group, [..., rows, groups, words] -> [..., groups, rows]."""
    return np.ascontiguousarray(np.swapaxes(np.bitwise_count(words).sum(-1, dtype=np.int64), -1, -2))


def _lengths(planes: BitPlanes) -> Counts:
    """Columns of each group; the last may be short."""
    wide = planes.group or planes.cols
    return np.minimum(wide, planes.cols - wide * np.arange(planes.groups)).astype(np.int64)


def _factors(planes: BitPlanes) -> Tensor:
    """What a digit is worth: float64 [planes, rows, groups]."""
    weight = torch.tensor(planes.weights, dtype=torch.float64)[:, None, None]
    if planes.scale is None:
        return weight.expand(planes.bits, planes.rows, planes.groups)
    return weight * planes.scale.double()


def _accepts(p: Problem) -> str | None:
    if p.packed:
        return "the weight is packed for other kernels"
    try:
        weights = TensorFormat.parse(p.weights)
    except FormatError:
        return f"{p.weights} is no format of codes"
    return reason(None if p.act is None else TensorFormat.parse(p.act), weights, p.k)


def _cost(p: Problem) -> float:
    assert p.act is not None, "accepted"
    planes = TensorFormat.parse(p.act).bits * TensorFormat.parse(p.weights).bits
    # of counts in numpy, which reads and writes the words of a row several times; compiled ones take less
    return 8 * planes * p.m * p.n * p.k / 8 / costs().bandwidth + 1e-4


def _run(x: Tensor, w: QTensor, bias: Tensor | None, act: TensorFormat) -> Any:
    return bitserial_linear(x, w, act, bias)


BITSERIAL = Kernel("bit-serial reference", _accepts, _cost, _run)
"""For tables of kernels (`ops.dispatch`): any widths up to 8 bits with any rule of signs."""
