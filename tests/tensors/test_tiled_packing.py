"""What must hold for tiled_packing.py: bytes are where the layout says, every code comes back, and what cannot be is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import LayoutError
from anybit.tensors import pack_bits
from anybit.tensors.layout import Layout, column_spatial, local
from anybit.tensors.tiled_packing import Packing, plane, register_view

FRAGMENT = local(2, 1) * column_spatial(4, 8) * local(2, 1)


def codes(rows: int, cols: int, bits: int) -> torch.Tensor:
    return torch.randint(0, 2**bits, (rows, cols), generator=torch.Generator().manual_seed(rows * cols)).to(torch.uint8)


@pytest.mark.parametrize("bits", range(1, 9))
def test_rows_of_eight_codes_are_the_canonical_bit_stream(bits: int) -> None:
    stream = Packing("stream", (plane(bits, "1 (k:8) -> 1 | k"),))
    given = codes(5, 24, bits)
    assert torch.equal(stream.pack(given), pack_bits(given, bits).reshape(-1))


@pytest.mark.parametrize(
    "order", ["row col plane", "col row plane", "row plane col", "col plane row", "plane row col", "plane col row"]
)
def test_tiles_and_planes_lie_in_the_order_given(order: str) -> None:
    """Planes of 2 and 1 bits, of 8 and 4 bytes a tile of 4 x 8: their strides follow from the order."""
    packing = Packing("both", (plane(2, "(n:4) (k:8) -> n | k", 1), plane(1, "(n:4) (k:8) -> n | k", 0)), order)  # type: ignore[arg-type]
    given = codes(11, 23, 3)
    data = packing.pack(given)
    assert data.numel() == packing.nbytes(11, 23) == 3 * 3 * 12
    sizes, count = (8, 4), {"row": 3, "col": 3}
    padded = np.zeros((12, 24), int)
    padded[:11, :23] = given
    for tile_row, tile_col, p, row in np.ndindex(3, 3, 2, 4):
        at = 0
        for pos, name in enumerate(order.split()):
            inner = order.split()[pos + 1 :]
            if name == "plane":
                # before a plane lie the earlier planes of everything inner
                at += sum(sizes[:p]) * int(np.prod([count[i] for i in inner]))
            else:
                both = "plane" in inner
                size = sum(sizes) if both else sizes[p]
                at += (
                    {"row": tile_row, "col": tile_col}[name]
                    * size
                    * int(np.prod([count[i] for i in inner if i != "plane"]))
                )
        tile = padded[4 * tile_row + row, 8 * tile_col : 8 * tile_col + 8]
        field = tile >> 1 if p == 0 else tile & 1
        number = sum(int(v) << (i * (2 - p)) for i, v in enumerate(field))
        length = 2 - p
        start = at + row * length
        assert int.from_bytes(bytes(data[start : start + length].tolist()), "little") == number
    assert torch.equal(packing.unpack(data, 11, 23), given)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("vector", [1, 4, 16])
def test_registers_read_as_bytes_come_back(bits: int, vector: int) -> None:
    """The bytes of a thread are its codes one after the other, loads of all threads together."""
    packing = Packing("view", (register_view(bits, local(1, 2) * FRAGMENT, vector),))
    given = codes(16, 16, bits)
    data = packing.pack(given)
    assert torch.equal(packing.unpack(data, 16, 16), given)
    held = given.reshape(-1)[torch.from_numpy((local(1, 2) * FRAGMENT).indices())]
    strings = pack_bits(held, bits)
    inner = np.gcd(bits, vector)
    for thread in range(32):
        loads = data.reshape(-1, 32, int(inner))[:, thread].reshape(-1)
        assert torch.equal(loads, strings[thread])


def test_the_examples_of_the_paper() -> None:
    """A tile of 16 x 16 of 6-bit codes: 48 bits a thread, loaded as three pairs of bytes (Tilus, section 4.3)."""
    tile = local(1, 2) * FRAGMENT
    for bits, flat, size in ((6, "local(3).spatial(32).local(2)", 192), (4, "local(1).spatial(32).local(4)", 128),
                             (3, "local(3).spatial(32).local(1)", 96), (1, "local(1).spatial(32).local(1)", 32)):  # fmt: skip
        view = register_view(bits, tile)
        inner = np.gcd(bits, 16)
        assert view.nbytes == size and view.memory == Layout.parse(f"local({bits // inner}).spatial(32).local({inner})")
        assert view.memory is not None and view.memory.places == Layout.parse(flat).places
    assert register_view(4, tile).memory == Layout.parse("local(1).spatial(32).local(4)")


def test_codes_wider_than_a_byte() -> None:
    packing = Packing("pairs", (plane(16, "(n:4) (e:2) -> n e | 1"),))
    given = torch.randint(0, 65536, (8, 6))
    again = packing.unpack(packing.pack(given), 8, 6)
    assert again.dtype == torch.int64 and torch.equal(again, given)
    words = packing.pack(given).numpy().view("<u2")
    assert words[:8].tolist() == given[:4, :2].reshape(-1).tolist()


def test_padding_is_the_code_asked_for() -> None:
    packing = Packing("stream", (plane(4, "1 (k:8) -> 1 | k"),))
    whole = packing.unpack(packing.pack(codes(2, 5, 4), pad=7), 2, 8)
    assert (whole[:, 5:] == 7).all() and packing.nbytes(2, 5) == 8
    assert packing.pack(torch.empty(0, 8, dtype=torch.uint8)).numel() == 0


def test_what_cannot_be_packed_is_refused() -> None:
    stream = Packing("stream", (plane(3, "1 (k:8) -> 1 | k"),))
    with pytest.raises(LayoutError, match=r"codes of 3 bits lie in \[0, 8\); got 0 to 8"):
        stream.pack(torch.tensor([[0, 8]]))
    with pytest.raises(LayoutError, match="a code of 3 bits; got 8"):
        stream.pack(torch.tensor([[0]]), pad=8)
    with pytest.raises(LayoutError, match=r"\[rows, cols\]; got the shape \(3,\)"):
        stream.pack(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(LayoutError, match="2 x 8 takes 6 bytes as stream; got 7"):
        stream.unpack(torch.zeros(7, dtype=torch.uint8), 2, 8)
    with pytest.raises(LayoutError, match="every holder has 12 bits, which are not whole bytes"):
        plane(3, "1 (k:4) -> 1 | k")
    with pytest.raises(LayoutError, match="4 codes of 3 bits a thread are not whole bytes"):
        register_view(3, FRAGMENT)
    with pytest.raises(LayoutError, match=r"hold the bits \[0, 0\] of a code instead of each once"):
        Packing("twice", (plane(1, "1 (k:8) -> 1 | k"), plane(1, "1 (k:8) -> 1 | k")))
    with pytest.raises(LayoutError, match="different tiles"):
        Packing("mixed", (plane(1, "1 (k:8) -> 1 | k"), plane(1, "1 (k:16) -> 1 | k", 1)))
    with pytest.raises(LayoutError, match=r"takes .row, column, bit. to one .holder, bit."):
        plane(4, "(k:8) -> 1 | k")
    with pytest.raises(LayoutError, match="cannot be"):
        plane(4, "1 (k:8) -> 1 | k", memory=Layout.parse("local(2).spatial(2)"))
    with pytest.raises(LayoutError, match="the order of tiles and planes is one of"):
        Packing("odd", (plane(4, "1 (k:8) -> 1 | k"),), "plane")  # type: ignore[arg-type]
