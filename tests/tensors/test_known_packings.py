"""Every known packing against a plain loop over what its source says, and the derived ones against the hand-written permutation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import LayoutError
from anybit.tensors.known_packings import (
    FRAGMENTS,
    INTERLEAVE,
    MARLIN_SCALES,
    PACKINGS,
    PLANES,
    abq,
    bit_serial,
    flexq,
    marlin,
    panels,
    plain_panels,
    t_mac,
    tilus,
    turbomind,
)
from anybit.tensors.layout import Layout


def codes(rows: int, cols: int, bits: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2**bits, (rows, cols), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize("name", PACKINGS)
def test_every_code_comes_back(name: str) -> None:
    packing = PACKINGS[name]()
    given = codes(67, 141, packing.bits)
    assert torch.equal(packing.unpack(packing.pack(given), 67, 141), given)
    assert sorted(packing.planes[0].source()) == list(range(8 * packing.planes[0].nbytes))


def test_fragments_as_the_manual_numbers_them() -> None:
    """PTX ISA, matrix fragments: row and column of register i of a lane with groupID = lane / 4 and t = lane % 4."""
    lane, i = np.meshgrid(np.arange(32), np.arange(8), indexing="ij")
    group, t = lane // 4, lane % 4
    row = group + 8 * np.isin(i, (2, 3, 6, 7))
    assert np.array_equal(FRAGMENTS["m16n8k16 a"].indices(), row * 16 + t * 2 + (i & 1) + 8 * (i >= 4))
    i4, lane4 = i[:, :4], lane[:, :4]
    group, t = lane4 // 4, lane4 % 4
    assert np.array_equal(FRAGMENTS["m16n8k16 b"].indices(), (t * 2 + (i4 & 1) + 8 * (i4 >= 2)) * 8 + group)
    assert np.array_equal(FRAGMENTS["m16n8 accumulator"].indices(), (group + 8 * (i4 >= 2)) * 8 + t * 2 + (i4 & 1))
    group, t = lane // 4, lane % 4
    assert np.array_equal(FRAGMENTS["m16n8k32 b"].indices(), (t * 4 + (i & 3) + 16 * (i >= 4)) * 8 + group)
    bit = np.arange(32)[None]
    assert np.array_equal(
        FRAGMENTS["m8n8k128 a"].indices(), np.arange(32)[:, None] // 4 * 128 + np.arange(32)[:, None] % 4 * 32 + bit
    )


@pytest.mark.parametrize("bits", range(1, 9))
def test_native_panels(bits: int) -> None:
    """Byte, field and plane of every code as the picture beside the kernels says."""
    n, k = 35, 70
    given = codes(n, k, bits, bits)
    stored = np.zeros((3, 3, 64 * bits), np.uint8)
    for row, col in np.ndindex(n, k):
        offset, below = 0, bits
        for width in PLANES[bits]:
            below -= width
            quad, j = col % 32 // 4, col % 4
            byte = offset + quad // (8 // width) * 64 + row % 16 * 4 + j
            field = int(given[row, col]) >> below & (1 << width) - 1
            stored[row // 16, col // 32, byte] |= field << quad % (8 // width) * width
            offset += 64 * width
    assert np.array_equal(panels(bits).pack(given), stored.reshape(-1))


def test_native_panels_of_plain_values() -> None:
    values = torch.randint(0, 65536, (16, 4))
    singles = plain_panels(16, pairs=False).pack(values).numpy().view("<u2")
    assert singles.tolist() == values.T.reshape(-1).tolist()
    pairs = plain_panels(16, pairs=True).pack(values).numpy().view("<u2")
    assert pairs.tolist() == [int(values[n, 2 * s + e]) for s in range(2) for n in range(16) for e in range(2)]


def marlin_words(w: np.ndarray) -> np.ndarray:
    """uint32 [k / 16, 2 n] of codes [k, n] by the permutation of 1024 values that MARLIN publishes, written out by hand."""
    perm: list[int] = []
    for lane in range(32):
        c, r = lane // 4, 2 * (lane % 4)
        eight = [16 * row + c + 8 * block for block in (0, 1) for row in (r, r + 1, r + 8, r + 9)]
        for j in range(4):
            perm += [x + 256 * j for x in eight]
    order = np.array(perm).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    k, n = w.shape
    tiles = w.reshape(k // 16, 16, n // 16, 16).transpose(0, 2, 1, 3).reshape(k // 16, n * 16)
    values = tiles.reshape(-1, 1024)[:, order].reshape(k // 16, 2 * n, 8).astype(np.uint64)
    return (values << (4 * np.arange(8, dtype=np.uint64))).sum(-1).astype(np.uint32)


def test_marlin_weights_are_the_published_permutation() -> None:
    given = codes(256, 96, 4)
    data = marlin().pack(given).numpy().view("<u4")
    assert np.array_equal(data, marlin_words(given.numpy().T).reshape(-1))


def test_marlin_is_the_fragment_repeated_and_interleaved() -> None:
    assert marlin().planes[0].layout == Layout.parse("(j:4 p:2 c:8) (h:2 l:4 e:2) (b:4) -> c l | j e p h b")
    assert INTERLEAVE.indices().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert MARLIN_SCALES["grouped"].indices().tolist() == [i + 8 * j for i in range(8) for j in range(8)]
    assert MARLIN_SCALES["a column"].indices().tolist() == [
        2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)
    ]


def test_one_mask_leaves_two_neighbouring_rows_in_the_halves_of_a_word() -> None:
    """What the interleaving is for: (w >> 4i) & 0x000F000F are rows r and r + 1 of one column."""
    given = codes(64, 16, 4)
    words = marlin().pack(given).numpy().view("<u4").reshape(32, 4)
    for lane in range(32):
        for j in range(4):
            for i in range(4):
                pair = int(words[lane, j]) >> 4 * i & 0x000F000F
                column, row = 16 * j + 8 * (i // 2) + lane // 4, 8 * (i % 2) + 2 * (lane % 4)
                assert pair & 0xFFFF == given[column, row] and pair >> 16 == given[column, row + 1]


def ldmatrix_transposed(shared: np.ndarray, addresses: list[tuple[int, int]]) -> np.ndarray:
    """ldmatrix.x4.trans on a 2-D array of 16-bit values: lane i gives the start of row i % 8 of 8 x 8 matrix i / 8; a lane then holds of
    each matrix, transposed, row lane / 4 and columns 2 (lane % 4) and the next. [32, 8]."""
    found = np.zeros((32, 8), shared.dtype)
    for m in range(4):
        matrix = np.array([shared[r, c : c + 8] for r, c in addresses[8 * m : 8 * m + 8]]).T
        for lane in range(32):
            found[lane, 2 * m : 2 * m + 2] = matrix[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2]
    return found


@pytest.mark.parametrize("atoms", [1, 2, 4])
def test_turbomind_is_the_load_of_fragments_executed_once(atoms: int) -> None:
    """Values [k, n] in shared memory, read as the kernel reads them; registers narrowed to nibbles and stored lane by lane."""
    k, n = 48, 16 * atoms * 3
    given = codes(n, k, 4)
    shared = given.numpy().T.astype(np.uint16)
    stored = []
    for k0 in range(0, k, 16):
        for n0 in range(0, n, 16 * atoms):
            words = np.zeros((32, atoms), np.uint32)
            for atom in range(atoms):
                corner = n0 + 16 * atom
                addresses = [(k0 + 8 * (m % 2) + r, corner + 8 * (m // 2)) for m in range(4) for r in range(8)]
                registers = ldmatrix_transposed(shared, addresses).astype(np.uint32)
                for nibble, value in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                    words[:, atom] |= registers[:, value] << np.uint32(4 * nibble)
            stored.append(words)
    data = turbomind(atoms).pack(given).numpy().view("<u4")
    assert np.array_equal(data, np.stack(stored).reshape(-1))


def test_turbomind_with_four_atoms_is_marlin() -> None:
    assert turbomind(4).planes == marlin().planes and turbomind(4).order == marlin().order


@pytest.mark.parametrize("bits", range(1, 9))
def test_tilus_without_the_interleaving_is_marlin_and_takes_every_width(bits: int) -> None:
    given = codes(64, 32, bits)
    packing = tilus(bits)
    data = packing.pack(given)
    assert data.numel() == 64 * 32 * bits // 8 and torch.equal(packing.unpack(data, 64, 32), given)
    if bits != 4:
        return
    # Nibbles of a word in order instead of interleaved, and lanes of 4 bytes instead of 16: the rest is the same.
    words = data.numpy().view("<u4").reshape(2, 4, 32)
    values = words[..., None] >> np.uint32(4) * np.arange(8, dtype=np.uint32) & 15
    interleaved = (values[..., [0, 2, 4, 6, 1, 3, 5, 7]] << (4 * np.arange(8, dtype=np.uint32))).sum(
        -1, dtype=np.uint32
    )
    # [k tile, n tile, lane] -> [k tile, lane, n tile]
    assert np.array_equal(interleaved.transpose(0, 2, 1).reshape(-1), marlin().pack(given).numpy().view("<u4"))


def test_planes_with_the_first_k_in_the_highest_bit() -> None:
    bits = 3
    given = codes(16, 256, bits)
    plane_words = abq(bits).pack(given).numpy().view("<u4").reshape(bits, 16, 8)
    blocks = flexq(bits).pack(given).numpy().view("<u4").reshape(2, 2, bits, 8, 4)
    low_first = bit_serial(bits, 8, 4).pack(given).numpy().view("<u4").reshape(2, 2, bits, 8, 4)
    for b, row, word in np.ndindex(bits, 16, 8):
        values = [int(given[row, 32 * word + i]) >> b & 1 for i in range(32)]
        expected = int("".join(map(str, values)), 2)
        assert plane_words[b, row, word] == expected
        assert blocks[word // 4, row // 8, b, row % 8, word % 4] == expected
        assert low_first[row // 8, word // 4, b, row % 8, word % 4] == int("".join(map(str, values[::-1])), 2)


def test_golden_word_of_flexq() -> None:
    """One row of codes k % 63 + 1 (values -31 … 31 and their offset 32): bit 31 of word 0 of plane 0 is the first element's lowest bit."""
    given = (torch.arange(128) % 63 + 1).to(torch.uint8).reshape(1, 128)
    words = flexq(6, chunk=1).pack(given).numpy().view("<u4")
    assert words[0] == 0xAAAAAAAA and words[0] >> 31 == int(given[0, 0]) & 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_t_mac_strips(bits: int) -> None:
    """Rows of planes as (row / 8, plane, row % 8); nibbles of four k; rows r and r + 16 of a strip in one byte."""
    rows, quads, n, k = 32, 8, 64, 64
    given = codes(n, k, bits)
    expected = np.zeros((n // rows, k // 4 // quads, rows * bits // 32, quads, 16), np.uint8)
    for row, b, quad in np.ndindex(n, bits, k // 4):
        nibble = sum((int(given[row, 4 * quad + t]) >> b & 1) << t for t in range(4))
        plane_row = row // 8 * 8 * bits + b * 8 + row % 8
        tile, within = divmod(plane_row, rows * bits)
        strip, lane = divmod(within, 32)
        expected[tile, quad // quads, strip, quad % quads, lane % 16] |= nibble << 4 * (lane // 16)
    assert np.array_equal(t_mac(bits, rows, quads).pack(given), expected.reshape(-1))


def test_t_mac_of_three_bits_is_no_movement_of_digits() -> None:
    with pytest.raises(LayoutError, match="cut at"):
        t_mac(3)
    with pytest.raises(LayoutError, match="strips of 32 nibbles"):
        t_mac(2, rows=8)


def test_nibbles_of_mixllm_are_those_of_ggml() -> None:
    """Blocks of four in the order 0 4 1 5 2 6 3 7, then every eight as 0 2 4 6 1 3 5 7 … of which the low nibbles are k below 16."""
    blocks = np.arange(32).reshape(8, 4)[[0, 4, 1, 5, 2, 6, 3, 7]].reshape(-1)
    eights = blocks.reshape(4, 2, 4).transpose(0, 2, 1).reshape(-1)
    given = codes(2, 32, 4)
    expected = given.numpy()[:, eights].reshape(2, 16, 2)
    packed = PACKINGS["mixllm w4"]().pack(given)
    assert np.array_equal(packed, (expected[..., 0] | expected[..., 1] << 4).reshape(-1))
    assert torch.equal(packed, PACKINGS["ggml q4_0"]().pack(given))


def test_comet_and_bitnet_bytes() -> None:
    given = codes(1, 8, 4)[0].tolist()
    halves = PACKINGS["comet w4"]().pack(torch.tensor([given])).numpy().view("<u2")
    # from the highest nibble down: w3 w1 w2 w0
    assert halves[0] == given[3] << 12 | given[1] << 8 | given[2] << 4 | given[0]
    two = codes(1, 128, 2)[0].tolist()
    packed = PACKINGS["bitnet i2_s"]().pack(torch.tensor([two]))
    assert packed.tolist() == [two[j] << 6 | two[j + 32] << 4 | two[j + 64] << 2 | two[j + 96] for j in range(32)]


def test_impossible_packings_are_refused() -> None:
    with pytest.raises(LayoutError, match="codes of 1 to 8 bits; got 9"):
        panels(9)
    with pytest.raises(LayoutError, match="fragments of 8 x 16; got 8 x 8"):
        tilus(4, 8, 8)
    with pytest.raises(LayoutError, match="not whole bytes"):
        tilus(3, 8, 16)
