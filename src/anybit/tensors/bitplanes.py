"""`BitPlanes`: a matrix of codes as one-bit matrices, and what a bit of each is worth.

    value[r, c] = offset + sum_i weight[i] * scale[i, r, group of c] * digit_i[r, c]          (scale 1 where there are none)

rule       digit of bit b   weight of plane i              values of n planes
unsigned   b                2^i                            0 … 2^n - 1
twos       b                2^i, of the top plane -2^i     -2^(n-1) … 2^(n-1) - 1
bipolar    2b - 1           2^i                            the odd integers -(2^n - 1) … 2^n - 1 (arXiv 2409.17870)

Planes are rows of 64-bit words, column k of a group in bit k % 64 of word k // 64, lowest bit first. A group of columns, which shares a
scale, begins with a word of its own; bits beyond its last column are 0. The top planes alone are the matrix at fewer bits, with no copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Format
from anybit.formats.integer import Int
from anybit.tensors.qtensor import QTensor

SignRule = Literal["unsigned", "twos", "bipolar"]
SIGN_RULES: tuple[str, ...] = get_args(SignRule)
WORD = 64


@dataclass(frozen=True, eq=False)
class BitPlanes:
    """words: int64 [planes, rows, groups, words a group], the lowest plane first. cols: columns. group: columns a group, 0 = all.

    offset: added to every value. scale: float32 [planes, rows, groups], or None.
    FormatError where the parts do not fit one another.
    """

    words: Tensor
    cols: int
    rule: SignRule
    group: int = 0
    offset: int = 0
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        if self.rule not in SIGN_RULES:
            raise FormatError(f"the rule of signs is one of {', '.join(SIGN_RULES)}; got {self.rule!r}")
        if self.words.ndim != 4 or self.words.dtype != torch.int64:
            raise FormatError(
                f"bit planes are int64 [planes, rows, groups, words]; got {self.words.dtype} {list(self.words.shape)}"
            )
        planes, rows, groups, words = self.words.shape
        wide = self.group or self.cols
        if self.group < 0 or not planes or (groups, words) != (_groups(self.cols, self.group), -(-wide // WORD)):
            raise FormatError(
                f"{self.cols} columns in groups of {wide} do not fill {groups} groups of {words} words in {planes} planes"
            )
        if self.scale is not None and self.scale.shape != (planes, rows, groups):
            raise FormatError(
                f"scales of planes are [planes, rows, groups] = {[planes, rows, groups]}; got {list(self.scale.shape)}"
            )

    @property
    def bits(self) -> int:
        """Number of planes."""
        return self.words.shape[0]

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return self.words.shape[1]

    @property
    def groups(self) -> int:
        """Groups of columns."""
        return self.words.shape[2]

    @property
    def weights(self) -> tuple[int, ...]:
        """What the digit of each plane is worth."""
        top = self.bits - 1
        return tuple(-(1 << i) if self.rule == "twos" and i == top else 1 << i for i in range(self.bits))

    @property
    def nbytes(self) -> int:
        """Bytes of words and scales."""
        scales = 0 if self.scale is None else self.scale.numel() * self.scale.element_size()
        return self.words.numel() * 8 + scales

    def digits(self) -> Tensor:
        """The bits themselves: uint8 [planes, rows, cols]."""
        flat = np.ascontiguousarray(self.words.cpu().numpy()).view(np.uint8)
        bits = np.unpackbits(flat, axis=-1, bitorder="little")
        wide = self.group or self.cols
        joined = bits[..., :wide].reshape(self.bits, self.rows, self.groups * wide)
        return torch.from_numpy(np.ascontiguousarray(joined[..., : self.cols]))

    def codes(self) -> Tensor:
        """The codes the planes were made of: uint8 [rows, cols], int32 beyond 8 planes."""
        weight = torch.tensor([1 << i for i in range(self.bits)], dtype=torch.int32)
        codes = (self.digits().int() * weight[:, None, None]).sum(0)
        return codes.to(torch.uint8 if self.bits <= 8 else torch.int32)

    def values(self) -> Tensor:
        """What the matrix stands for: int64 [rows, cols], float64 where planes have scales."""
        digits = self.digits().long()
        if self.rule == "bipolar":
            digits = 2 * digits - 1
        weight = torch.tensor(self.weights)[:, None, None]
        if self.scale is None:
            return (digits * weight).sum(0) + self.offset
        wide = self.group or self.cols
        scale = self.scale.double().repeat_interleave(max(wide, 1), dim=2)[..., : self.cols]
        return (digits * weight * scale).sum(0) + self.offset

    def top(self, bits: int) -> BitPlanes:
        """The highest `bits` planes as a matrix of their own, a view: what value >> (planes - bits) leaves of each value.

        Times 2^(planes - bits) it is the value rounded down, and of bipolar planes the nearest value of the coarser grid (a tie of
        none). FormatError for more planes than there are, for scaled planes, and for offsets that the shift would cut.
        """
        if not 1 <= bits <= self.bits:
            raise FormatError(f"a matrix of {self.bits} planes has no {bits} top planes")
        if self.scale is not None:
            raise FormatError("planes with scales of their own have no common unit; take the planes wanted instead")
        cut = self.bits - bits
        if self.offset % (1 << cut):
            raise FormatError(f"the offset {self.offset} is no multiple of {1 << cut}, the unit of {bits} top planes")
        return replace(self, words=self.words[cut:], offset=self.offset >> cut)


def bit_planes(
    codes: Tensor, bits: int, rule: SignRule, group: int = 0, offset: int = 0, scale: Tensor | None = None
) -> BitPlanes:
    """codes [rows, cols], integers in [0, 2^bits) -> planes. FormatError for codes out of range and for anything but a matrix."""
    if codes.ndim != 2 or not 1 <= bits <= 16:
        raise FormatError(
            f"bit planes are made of [rows, cols] codes of 1 to 16 bits; got {bits} and {list(codes.shape)}"
        )
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << bits:
        raise FormatError(f"codes of {bits} bits lie in [0, {1 << bits}); got {int(codes.min())} to {int(codes.max())}")
    if group < 0:
        raise FormatError(f"a group has 0 (all) or more columns; got {group}")
    rows, cols = codes.shape
    wide, groups = group or cols, _groups(cols, group)
    words = -(-wide // WORD)
    padded = np.zeros((rows, groups * wide), np.uint16)
    padded[:, :cols] = codes.cpu().numpy()
    slots = np.zeros((bits, rows, groups, words * WORD), np.uint8)
    for i in range(bits):
        slots[i, ..., :wide] = (padded >> i & 1).reshape(rows, groups, wide)
    packed = np.packbits(slots, axis=-1, bitorder="little").view(np.int64)
    return BitPlanes(torch.from_numpy(packed), cols, rule, group, offset, scale)


def planes_of(element: Format) -> tuple[SignRule, int]:
    """(rule, offset) by which the planes of an element format's codes give its values.

    Integers, bipolar formats and codebooks of integers in a row (ternary). FormatError for others.
    """
    if isinstance(element, Int):
        return ("twos" if element.signed else "unsigned"), 0
    values = np.asarray(element.values)
    steps = np.unique(np.diff(values))
    if len(values) == 1 << element.bits and element.name.startswith("bipolar"):
        return "bipolar", 0
    if len(steps) == 1 and steps[0] == 1 and float(values[0]).is_integer():
        return "unsigned", int(values[0])
    raise FormatError(f"the values of {element.name} are no weighted sums of the bits of their codes")


def from_qtensor(q: QTensor, group: int | None = None) -> BitPlanes:
    """The planes of a quantized matrix's elements, without its scales and zero points.

    group: columns a group of words, by default those that share a scale. FormatError for formats that are no sums of their bits.
    """
    rule, offset = planes_of(q.format.element)
    return bit_planes(q.unpacked(), q.format.bits, rule, q.format.block[1] if group is None else group, offset)


def as_bipolar(planes: BitPlanes) -> tuple[BitPlanes, float, float]:
    """(bipolar planes, scale, shift) with value = scale * bipolar value + shift; only the top plane of `twos` is changed.

    A signed s is (2s + 1) / 2 - 1/2, an unsigned u (2u - (2^n - 1)) / 2 + (2^n - 1) / 2 (arXiv 2409.17870).
    """
    if planes.rule == "bipolar":
        return planes, 1.0, 0.0
    if planes.scale is not None:
        raise FormatError("planes with scales of their own cannot be made bipolar as a whole")
    if planes.rule == "unsigned":
        shift = (2**planes.bits - 1) / 2 + planes.offset
        return replace(planes, rule="bipolar", offset=0), 0.5, shift
    wide = planes.group or planes.cols
    ones = bit_planes(torch.ones(1, planes.cols, dtype=torch.uint8), 1, "unsigned", planes.group).words
    assert ones.shape[-1] == -(-wide // WORD), "both are padded alike"
    words = torch.cat([planes.words[:-1], planes.words[-1:] ^ ones])
    return replace(planes, words=words, rule="bipolar", offset=0), 0.5, planes.offset - 0.5


def _groups(cols: int, group: int) -> int:
    return -(-cols // group) if group else 1
