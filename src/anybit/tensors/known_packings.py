"""Known packings as layouts: what the kernels of this package read, and what other systems store.

Matrices are [n, k] as everywhere here (outputs, inputs); a source that stores [k, n] is given transposed. In the notation of
`tensors.layout`, k = (h:2 l:4 e:2) is k = 8h + 2l + e, and what follows the arrow says `holder | slot`, lowest slot in the lowest bits.
"""

from __future__ import annotations

from collections.abc import Callable

from anybit.errors import LayoutError
from anybit.tensors.layout import Layout, column_local, column_spatial, local, spatial
from anybit.tensors.tiled_packing import Packing, plane, register_view

FRAGMENTS: dict[str, Layout] = {
    "m16n8k16 a": column_local(2, 2) * spatial(8, 4) * local(1, 2),
    "m16n8k16 b": local(2, 1) * column_spatial(4, 8) * local(2, 1),
    "m16n8 accumulator": local(2, 1) * spatial(8, 4) * local(1, 2),
    "m16n8k32 b": local(2, 1) * column_spatial(4, 8) * local(4, 1),
    "m8n8k128 a": spatial(8, 4) * local(1, 32),
}
"""(row, column) -> (lane, register slot) of operands of NVIDIA's warp-level matrix instructions, as the PTX manual draws them: a is [m, k],
b is [k, n], 16-bit values but for k32 (8 bits) and k128 (1 bit)."""

INTERLEAVE = Layout.parse("(pair:4 e:2) -> e pair")
"""Where the eight nibbles of a word go: values 2i and 2i + 1 lie 16 bits apart, so that one mask leaves both in the halves of a word."""

PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}
"""Widths of the planes of a code in the native kernels, the highest bits first."""


def panels(bits: int) -> Packing:
    """The native kernels' order of b-bit codes (native/generic/matmul.hpp draws it): tiles of 16 rows x 32 k, a plane after the other.

    Vector v of a plane of p bits has four bytes a row; field f of byte j is k = 4 * (v * 8 / p + f) + j. LayoutError beyond 8 bits.
    """
    if bits not in PLANES:
        raise LayoutError(f"the native kernels pack codes of 1 to 8 bits; got {bits}")
    planes, below = [], bits
    for width in PLANES[bits]:
        below -= width
        planes.append(plane(width, f"(n:16) (v:{width} f:{8 // width} j:4) -> v n j | f", below))
    return Packing(f"panels of {bits} bits", tuple(planes))


def plain_panels(bits: int, pairs: bool) -> Packing:
    """The native order of plain values of 16 or 32 bits: 16 rows of one k together, or (bfloat16) two k of a row."""
    layout = "(n:16) (e:2) -> n e | 1" if pairs else "(n:16) 1 -> n | 1"
    return Packing(f"panels of {bits}-bit values", (plane(bits, layout),))


def marlin() -> Packing:
    """4-bit weights of MARLIN (arXiv 2408.11743): tiles of 64 n x 16 k, in each lane the fragments of eight 16 x 8 products.

    The layout is made of the fragment, 4 x 2 of them a tile, and the interleaving of nibbles in each of a lane's four words.
    """
    fragment = FRAGMENTS["m16n8k16 b"].transpose(1, 0)
    lanes = local(8, 1) * fragment
    words = Layout.parse("(lane:32) (word:4 pair:4 e:2) -> lane | word e pair")
    return Packing("marlin", (plane(4, words @ lanes),), "col row plane")


MARLIN_SCALES: dict[str, Layout] = {
    "grouped": Layout.parse("(j:8 i:8) -> i j"),
    "a column": Layout.parse("(q:4 i:4 e:2) -> i q e"),
}
"""Where a scale of 64 (with groups) or 32 neighbouring n goes."""


def turbomind(atoms: int = 1) -> Packing:
    """4-bit weights of TurboMind (arXiv 2508.15601): registers as the fragment load fills them, `atoms` of 16 k x 16 n a lane and store.

    One ldmatrix of four 8 x 8 matrices, read along n, gives a lane eight values; they are narrowed to a word of interleaved nibbles.
    """
    fragment = FRAGMENTS["m16n8k16 b"].transpose(1, 0)
    registers = local(atoms, 1) * local(2, 1) * fragment
    words = Layout.parse(f"(lane:32) (word:{atoms} pair:4 e:2) -> lane | word e pair")
    return Packing(f"turbomind, {atoms} atoms", (plane(4, words @ registers),), "col row plane")


def tilus(bits: int, rows: int = 16, cols: int = 16, vector: int = 16) -> Packing:
    """Weights of any width as Tilus stores them: tiles [n, k] of the fragment of a 16-bit product, a lane's bits read as bytes.

    LayoutError where a lane has no whole bytes and for tiles that are not made of 8 x 16 fragments.
    """
    fragment = FRAGMENTS["m16n8k16 b"].transpose(1, 0)
    if rows % 8 or cols % 16:
        raise LayoutError(f"tiles are made of fragments of 8 x 16; got {rows} x {cols}")
    # Tilus lists tiles as [k, n], row by row.
    tile = local(cols // 16, rows // 8).transpose(1, 0) * fragment
    return Packing(f"tilus of {bits} bits", (register_view(bits, tile, vector),), "col row plane")


def bit_serial(bits: int, rows: int, words: int) -> Packing:
    """Planes of blocks (APMM, arXiv 2409.17870): [n / rows][k / (32 words)][plane][row][word], lowest k in the lowest bit of a word."""
    layout = f"(n:{rows}) (w:{words} f:32) -> n w | f"
    return Packing(f"bit-serial blocks of {bits} bits", tuple(plane(1, layout, i) for i in range(bits)))


def abq(bits: int) -> Packing:
    """Planes of ABQ-LLM (arXiv 2408.08554): [plane][row][k / 32] words, the first k in the highest bit."""
    layout = "1 (f:32) -> 1 | ~f"
    return Packing(f"abq planes of {bits} bits", tuple(plane(1, layout, i) for i in range(bits)), "plane row col")


def flexq(bits: int, chunk: int = 8) -> Packing:
    """Planes of FlexQ (arXiv 2508.04405): [k / 128][rows / chunk][plane][chunk][4] words, the first k in the highest bit."""
    layout = f"(n:{chunk}) (w:4 f:32) -> n w | ~f"
    return Packing(f"flexq planes of {bits} bits", tuple(plane(1, layout, i) for i in range(bits)), "col row plane")


def t_mac(bits: int, rows: int = 32, quads: int = 8) -> Packing:
    """Indices of T-MAC's tables (EuroSys 2025): four k of a plane are a nibble, planes of eight rows lie together, 32 such rows a strip.

    rows, quads: of a tile, outputs and groups of four k. LayoutError for 3 bits, whose strips cut a group of planes, and where
    rows * bits is not a multiple of 32.
    """
    if rows % 8 or rows * bits % 32:
        raise LayoutError(f"a tile of {rows} rows of {bits} planes is not made of strips of 32 nibbles")
    split = Layout.parse(f"(g:{rows // 8} s:8) (q:{quads} t:4) (b:{bits}) -> g b s | q | t")
    strips = Layout.parse(f"(z:{rows * bits // 32} h:2 x:16) (q:{quads}) (t:4) -> z q x | h t")
    return Packing(f"t-mac of {bits} bits", (plane(bits, strips @ split),))


PACKINGS: dict[str, Callable[[], Packing]] = {
    "abq w2": lambda: abq(2),
    "apmm w2": lambda: bit_serial(2, 8, 4),
    "bitnet i2_s": lambda: Packing("bitnet i2_s", (plane(2, "1 (f:4 j:32) -> j | ~f"),)),
    "comet w4": lambda: Packing("comet w4", (plane(4, "1 (a:2 b:2) -> 1 | b a"),)),
    "flexq w6": lambda: flexq(6),
    "ggml q4_0": lambda: Packing("ggml q4_0", (plane(4, "1 (h:2 j:16) -> j | h"),)),
    "marlin": marlin,
    "mixllm w4": lambda: Packing("mixllm w4", (plane(4, "1 (x:2 y:4 j:4) -> y j | x"),)),
    "t-mac w2": lambda: t_mac(2),
    "tilus w6": lambda: tilus(6),
    "turbomind": turbomind,
    **{f"native w{bits}": lambda bits=bits: panels(bits) for bits in PLANES},  # type: ignore[misc]
}
"""One of each, for pictures and tests."""
