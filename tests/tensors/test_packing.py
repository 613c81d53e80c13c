"""What must hold for packing.py. The oracle is Python's big integers: a row is the number sum(code_k * 2^(k*bits))."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import FormatError
from anybit.tensors import pack_bits, unpack_bits
from anybit.tensors.packing import WIDTHS, row_bytes


def code_type(bits: int) -> torch.dtype:
    return torch.uint8 if bits <= 8 else torch.int32 if bits == 16 else torch.int64


@pytest.mark.parametrize("bits", WIDTHS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_are_little_endian_bit_streams(bits: int, data: st.DataObject) -> None:
    rows, count = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 35))
    one_row = st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count)
    values = data.draw(st.lists(one_row, min_size=rows, max_size=rows))
    codes = torch.tensor(values, dtype=code_type(bits)).reshape(rows, count)
    packed = pack_bits(codes, bits)
    assert packed.shape == (rows, row_bytes(count, bits)) and packed.dtype == torch.uint8
    for row, stream in zip(values, packed, strict=True):
        number = sum(code << (k * bits) for k, code in enumerate(row))
        assert bytes(stream.tolist()) == number.to_bytes(row_bytes(count, bits), "little")
    again = unpack_bits(packed, bits, count)
    assert again.dtype == code_type(bits) and torch.equal(again, codes)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_code_in_every_position(bits: int) -> None:
    codes = torch.arange(2**bits).to(torch.uint8)
    grid = torch.stack([codes.roll(k) for k in range(9)])  # 9 positions cover all eight offsets within a byte
    assert torch.equal(unpack_bits(pack_bits(grid, bits), bits, 2**bits), grid)


def test_the_picture_in_the_docstring() -> None:
    assert pack_bits(torch.tensor([[0x3, 0xA]]), 4).tolist() == [[0xA3]]
    c = [1, 2, 3, 4, 5, 6, 7, 0]
    assert pack_bits(torch.tensor([c]), 3).tolist() == [[
        c[0] | c[1] << 3 | (c[2] & 3) << 6,
        c[2] >> 2 | c[3] << 1 | c[4] << 4 | (c[5] & 1) << 7,
        c[5] >> 1 | c[6] << 2 | c[7] << 5,
    ]]  # fmt: skip
    assert pack_bits(torch.tensor([[0x1234]]), 16).tolist() == [[0x34, 0x12]]


def test_strided_input_and_no_aliasing() -> None:
    codes = torch.randint(0, 8, (16, 6), dtype=torch.uint8)
    assert torch.equal(pack_bits(codes.t(), 3), pack_bits(codes.t().contiguous(), 3))
    packed = pack_bits(codes, 8)
    packed.zero_()
    unpack_bits(packed, 8, 6).fill_(1)
    assert codes.max() > 0 and packed.max() == 0
    wide = torch.randint(0, 256, (4, 12), dtype=torch.uint8)
    assert torch.equal(unpack_bits(wide[:, :6], 3, 16), unpack_bits(wide[:, :6].clone(), 3, 16))


def test_bad_input_is_refused() -> None:
    for bits in (0, 9, 17):
        with pytest.raises(FormatError, match=f"1 to 8, 16 or 32 bits; got {bits}"):
            pack_bits(torch.zeros(1, 1, dtype=torch.uint8), bits)
    with pytest.raises(FormatError, match=r"codes of 3 bits lie in \[0, 8\); got 0 to 8"):
        pack_bits(torch.tensor([[0, 8]]), 3)
    with pytest.raises(FormatError, match="got -1 to 0"):
        pack_bits(torch.tensor([[0, -1]]), 3)
    with pytest.raises(FormatError, match=r"\[rows, n\]; got the shape \(3,\)"):
        pack_bits(torch.zeros(3, dtype=torch.uint8), 3)
    with pytest.raises(FormatError, match=r"uint8 \[rows, 2\]; got uint8 \[1, 3\]"):
        unpack_bits(torch.zeros(1, 3, dtype=torch.uint8), 4, 4)
