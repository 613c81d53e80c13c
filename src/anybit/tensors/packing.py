"""The canonical bit packing: a little-endian bit stream for each row.

Code k of a row is bits [k*b, (k+1)*b) of its stream, least significant bit first; byte j holds bits [8j, 8j+8). Every row starts on
a byte. Drawn with bit 7 of a byte on its left, `c2.0` being bit 0 of code 2:

    b = 4   byte 0: c1.3 c1.2 c1.1 c1.0 c0.3 c0.2 c0.1 c0.0
    b = 3   byte 0: c2.1 c2.0 c1.2 c1.1 c1.0 c0.2 c0.1 c0.0
            byte 1: c5.0 c4.2 c4.1 c4.0 c3.2 c3.1 c3.0 c2.2
            byte 2: c7.2 c7.1 c7.0 c6.2 c6.1 c6.0 c5.2 c5.1
    b = 16  byte 0: low half of c0;   byte 1: high half of c0

Eight codes of b bits fill b bytes, so eight codes travel together as one 64-bit word; three shift-and-or steps close the gaps
between them (packing) or open them (unpacking):

    word   .......7.......6.......5.......4.......3.......2.......1.......0     eight bytes, one code each
    step 1 ......76......54......32......10     lanes of 16 bits hold 2b bits
    step 2 ....7654....3210                     lanes of 32 bits hold 4b bits
    step 3 76543210                             8b bits
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from anybit.errors import FormatError

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)

_EVEN_BYTES = 0x00FF00FF00FF00FF
_EVEN_PAIRS = 0x0000FFFF0000FFFF
_LOW_HALF = 0x00000000FFFFFFFF
_EIGHT_CODES = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
"""The integer that eight codes of so many bits just fill."""

if sys.byteorder != "little":
    raise ImportError("anybit packs by reinterpreting words as bytes and so needs a little-endian machine")


def row_bytes(count: int, bits: int) -> int:
    """Bytes of a row of `count` codes."""
    return (count * bits + 7) // 8


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """codes [rows, n], integers in [0, 2^bits) (uint8; int32 or int64 beyond 8 bits) -> uint8 [rows, ceil(n*bits/8)], pad bits 0.

    FormatError for a width not in 1-8, 16, 32, and for codes out of range.
    """
    _check_width(bits)
    if codes.ndim != 2:
        raise FormatError(f"codes to pack are [rows, n]; got the shape {tuple(codes.shape)}")
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits:
        raise FormatError(f"codes of {bits} bits lie in [0, {2**bits}); got {int(codes.min())} to {int(codes.max())}")
    rows, count = codes.shape
    if bits >= 8:
        word = {8: torch.uint8, 16: torch.int16, 32: torch.int32}[bits]
        return _as_bytes(codes.to(word, copy=True))
    codes = codes.to(torch.uint8)
    if count % 8:
        codes = torch.nn.functional.pad(codes, (0, -count % 8))
    word64 = _as_words(codes, torch.int64)
    word64 = (word64 & _EVEN_BYTES) | (((word64 >> 8) & _EVEN_BYTES) << bits)
    word64 = (word64 & _EVEN_PAIRS) | (((word64 >> 16) & _EVEN_PAIRS) << 2 * bits)
    word64 = (word64 & _LOW_HALF) | ((word64 >> 32) << 4 * bits)
    if bits in (1, 2, 4):  # a narrower integer type drops the empty bytes faster than a copy of slices
        packed = _as_bytes(word64.to(_EIGHT_CODES[bits]))
    else:
        groups = word64.shape[1]
        packed = _as_bytes(word64).reshape(rows, groups, 8)[:, :, :bits].reshape(rows, groups * bits)
    wanted = row_bytes(count, bits)
    return packed if packed.shape[1] == wanted else packed[:, :wanted].contiguous()


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """uint8 [rows, ceil(count*bits/8)] -> codes [rows, count]: uint8, int32 for 16 bits, int64 for 32. The inverse of `pack_bits`.

    FormatError where the width is unknown or the rows have another number of bytes.
    """
    _check_width(bits)
    if packed.ndim != 2 or packed.dtype != torch.uint8 or packed.shape[1] != row_bytes(count, bits):
        raise FormatError(
            f"{count} codes of {bits} bits are packed as uint8 [rows, {row_bytes(count, bits)}]; "
            f"got {str(packed.dtype).removeprefix('torch.')} {list(packed.shape)}"
        )
    rows = packed.shape[0]
    if bits == 8:
        return packed.clone()
    if bits == 16:
        return _as_words(packed, torch.int16).to(torch.int32) & 0xFFFF
    if bits == 32:
        return _as_words(packed, torch.int32).to(torch.int64) & _LOW_HALF
    groups = (count + 7) // 8
    if packed.shape[1] != groups * bits:
        packed = torch.nn.functional.pad(packed, (0, groups * bits - packed.shape[1]))
    if bits in (1, 2, 4):
        word64 = _as_words(packed, _EIGHT_CODES[bits]).to(torch.int64)
    else:
        spread = packed.new_zeros(rows, groups, 8)
        spread[:, :, :bits] = packed.reshape(rows, groups, bits)
        word64 = _as_words(spread.reshape(rows, 8 * groups), torch.int64)
    low = (1 << bits) - 1
    word64 = (word64 & ((1 << 4 * bits) - 1)) | (((word64 >> 4 * bits) & ((1 << 4 * bits) - 1)) << 32)
    pair = (1 << 2 * bits) - 1
    word64 = (word64 & (pair * 0x0000000100000001)) | (((word64 >> 2 * bits) & (pair * 0x0000000100000001)) << 16)
    word64 = (word64 & (low * 0x0001000100010001)) | (((word64 >> bits) & (low * 0x0001000100010001)) << 8)
    codes = _as_bytes(word64)
    return codes if count == 8 * groups else codes[:, :count].contiguous()


def _as_bytes(words: Tensor) -> Tensor:
    # Viewed flat: torch refuses to reinterpret the rows of empty and one-column matrices, whose strides are arbitrary.
    rows, count = words.shape
    return words.reshape(rows * count).view(torch.uint8).reshape(rows, count * words.element_size())


def _as_words(data: Tensor, dtype: torch.dtype) -> Tensor:
    rows, count = data.shape
    return data.reshape(rows * count).view(dtype).reshape(rows, count // dtype.itemsize)


def _check_width(bits: int) -> None:
    if bits not in WIDTHS:
        raise FormatError(f"codes are packed with 1 to 8, 16 or 32 bits; got {bits}")
