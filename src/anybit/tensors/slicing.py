"""`at_bits`: the same stored numbers at fewer bits, by arithmetic on the codes alone.

mode       the integer v of h bits at l bits, d = h - l                     the value it stands for     source
round      clip((v + 2^(d-1)) >> d)                                         2^d times it                arXiv 2502.01199, 2602.03537
truncate   v >> d, the top bits                                             2^d times it
midpoint   v >> d, read as bipolar: the middle of what it was cut from      2^(d-1) (2 (v >> d) + 1)

Rounding is what loses least at a few bits but not what a reader of the top bit planes sees; truncating is, and is biased; the midpoint
takes half of the bias away. Bipolar numbers need no choice: their top bits are the nearest value of the coarser grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import Format, TensorFormat
from anybit.formats.integer import Int
from anybit.tensors.packing import pack_bits
from anybit.tensors.qtensor import QTensor
from anybit.tensors.scales import load_scale, store_scale

Slice = Literal["round", "truncate", "midpoint"]
SLICES: tuple[str, ...] = get_args(Slice)


def at_bits(q: QTensor, bits: int, mode: Slice = "round") -> QTensor:
    """The tensor with elements of `bits` bits: integers stay integers (bipolar under midpoint), scales are multiplied by the power of two.

    FormatError for elements that are neither integers nor bipolar, for more bits than there are, for midpoints of unsigned integers or
    with zero points, for zero points the coarser grid does not hold, and where a scale's format does not hold the product.
    """
    element = q.format.element
    if mode not in SLICES:
        raise FormatError(f"numbers are cut to fewer bits by {', '.join(SLICES)}; got {mode!r}")
    if not 1 <= bits <= element.bits:
        raise FormatError(f"a tensor of {element.bits} bits has no form of {bits} bits; choose 1 to {element.bits}")
    is_bipolar = element.name == f"bipolar{element.bits}"
    if not is_bipolar and not isinstance(element, Int):
        raise FormatError(f"only integers and bipolar numbers can be cut to fewer bits; got {element.name}")
    if bits == element.bits:
        return q
    cut = element.bits - bits
    codes = q.unpacked().int()
    if is_bipolar:
        return _scaled(q, formats.get(f"bipolar{bits}"), codes >> cut, None, 2.0**cut)
    assert isinstance(element, Int)
    coarse = _coarse(element, bits)
    values = codes - ((codes >> element.bits - 1) << element.bits) if element.signed else codes
    if mode == "midpoint":
        if not element.signed or q.zero is not None:
            raise FormatError(f"midpoints are for signed integers without zero points; got {q.format}")
        return _scaled(q, formats.get(f"bipolar{bits}"), (values >> cut) + (1 << bits - 1), None, 2.0 ** (cut - 1))
    values = values >> cut if mode == "truncate" else values + (1 << cut - 1) >> cut
    kept = values.clamp(int(coarse.min), int(coarse.max)) & (1 << bits) - 1
    return _scaled(q, coarse, kept, _zero(q, coarse, cut), 2.0**cut)


def _coarse(element: Int, bits: int) -> Format:
    if element.narrow and bits == 1:
        raise FormatError(f"{element.name} has no symmetric form of one bit")
    return Int(bits, element.signed, element.narrow)


def _zero(q: QTensor, coarse: Format, cut: int) -> Tensor | None:
    zeros = q.zeros()
    if zeros is None:
        return None
    moved = zeros / 2**cut
    if (moved != moved.round()).any() or (moved > coarse.max).any() or (moved < coarse.min).any():
        raise FormatError(
            f"the zero points of this {q.format} tensor are not all multiples of {2**cut} that {coarse.name} holds"
        )
    code: Tensor = coarse.encode(moved)
    return code.to(torch.uint8)


def _scaled(q: QTensor, element: Format, codes: Tensor, zero: Tensor | None, factor: float) -> QTensor:
    """The tensor with other codes, worth `factor` times as much."""
    fmt, scale, tensor_scale = q.format, q.scale, q.tensor_scale
    if tensor_scale is not None:
        tensor_scale = tensor_scale * factor
    elif scale is not None and fmt.scale is not None:
        wanted = load_scale(scale, fmt.scale) * factor
        scale = store_scale(wanted, fmt.scale)
        if not torch.equal(load_scale(scale, fmt.scale), wanted):
            raise FormatError(
                f"scales of {fmt.scale.name} do not hold {factor:g} times the scales of this {fmt} tensor"
            )
    else:
        fmt = TensorFormat(element, (0, 0), formats.get("fp32"))
        scale = torch.full(fmt.grid(q.shape), factor)
    fmt = replace(fmt, element=element, zero=element if zero is not None else None)
    packed = pack_bits(codes.to(torch.uint8), element.bits)
    return replace(q, codes=packed, scale=scale, zero=zero, tensor_scale=tensor_scale, format=fmt)
