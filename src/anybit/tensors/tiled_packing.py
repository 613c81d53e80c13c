"""`Packing`: the bytes of a matrix of codes in any order, described by layouts instead of written by hand.

A matrix [rows, cols] of codes is cut into tiles, a code into planes of one or more bits. The layout of a plane says which holder (a
thread, a lane, a word) has which bits of the tile, and in what order they follow each other in its string of bits. `memory` says where
the bytes of these strings lie; None where they follow one another, holder by holder. `order` is the order of tiles and planes:

    order   row col plane     the planes of a tile together, tiles row by row
            col row plane     tiles column by column
            plane row col     every plane a matrix of its own

Reading the bits of a holder as bytes, whatever the width of the codes, costs nothing at run time: that is the reinterpretation of Tilus
(arXiv 2504.12984, section 4.3), and all there is to packing codes of 3 or 6 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.errors import LayoutError
from anybit.tensors.layout import Indices, Layout

Order = Literal["row col plane", "col row plane", "row plane col", "col plane row", "plane row col", "plane col row"]


@dataclass(frozen=True)
class Plane:
    """`bits` bits of a code from bit `position` on.

    layout: (row of the tile, column, bit) -> (holder, bit of its string, lowest first), without replicas.
    memory: (byte) -> (holder, byte of its string): where the bytes of the strings lie; None: one string after the other.
    LayoutError unless the strings are whole bytes and `memory` covers them.
    """

    bits: int
    position: int
    layout: Layout
    memory: Layout | None = None

    def __post_init__(self) -> None:
        layout = self.layout
        if len(layout.shape) != 3 or len(layout.axes) != 2 or layout.replicas != 1:
            raise LayoutError(f"a plane's layout takes (row, column, bit) to one (holder, bit); got {layout}")
        if layout.shape[2] != self.bits or self.bits < 1 or self.position < 0:
            raise LayoutError(
                f"a plane of {self.bits} bits from bit {self.position} on cannot have the layout {layout}"
            )
        holders, string = layout.places
        if string % 8:
            raise LayoutError(
                f"every holder has {string} bits, which are not whole bytes; choose a larger tile than {layout.shape[:2]}"
            )
        wanted = (holders, string // 8)
        if self.memory is not None and (len(self.memory.shape) != 1 or self.memory.places != wanted):
            raise LayoutError(f"the memory of {holders} strings of {string // 8} bytes cannot be {self.memory}")

    @property
    def nbytes(self) -> int:
        """Bytes of a tile."""
        return math.prod(self.layout.shape) // 8

    def source(self) -> Indices:
        """For every bit of the tile's memory, lowest first, the row-major number of the (row, column, bit) it holds: int64 [8 * nbytes]."""
        strings = self.layout.indices().reshape(-1, 8)
        return (strings if self.memory is None else strings[self.memory.where()]).reshape(-1)


def plane(bits: int, layout: Layout | str, position: int = 0, memory: Layout | None = None) -> Plane:
    """A plane from the layout of whole codes, (row, column) -> (holder, slot), their bits in place; or of (row, column, bit)."""
    found = Layout.parse(layout) if isinstance(layout, str) else layout
    return Plane(bits, position, found if len(found.shape) == 3 else found.with_bits(bits), memory)


def register_view(bits: int, tile: Layout, vector: int = 16) -> Plane:
    """A tile as the threads of a kernel hold it, stored so that every thread loads its bytes with the widest vectors.

    tile: (row, column) -> (thread, slot).  The bytes of a thread are loaded `gcd(bytes, vector)` at a time; loads of all threads
    lie together (Tilus: `local(bytes / inner).spatial(threads).local(inner)`).  LayoutError where a thread's bits are no whole bytes.
    """
    threads, slots = tile.places
    if slots * bits % 8:
        raise LayoutError(
            f"{slots} codes of {bits} bits a thread are not whole bytes; take a larger tile than {tile.shape}"
        )
    size = slots * bits // 8
    inner = math.gcd(size, vector)
    flat = Layout.parse(f"local({size // inner}).spatial({threads}).local({inner})")
    return plane(bits, tile, memory=flat)


@dataclass(frozen=True)
class Packing:
    """name: for messages. planes: in the order they lie, of tiles of one size. order: of tiles and planes in memory.

    LayoutError unless the planes are of one tile and hold every bit of a code once.
    """

    name: str
    planes: tuple[Plane, ...]
    order: Order = "row col plane"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order):
            raise LayoutError(
                f"the order of tiles and planes is one of {', '.join(get_args(Order))}; got {self.order!r}"
            )
        held = sorted(p.position + i for p in self.planes for i in range(p.bits))
        if not held or held != list(range(len(held))):
            raise LayoutError(f"the planes of {self.name} hold the bits {held} of a code instead of each once")
        if len({p.layout.shape[:2] for p in self.planes}) != 1:
            raise LayoutError(f"the planes of {self.name} are of different tiles")

    @property
    def bits(self) -> int:
        """Of a code."""
        return sum(p.bits for p in self.planes)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.bits <= 8 else np.int64)

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        rows, cols, _ = self.planes[0].layout.shape
        return rows, cols

    def grid(self, rows: int, cols: int) -> tuple[int, int]:
        """Tiles that cover a matrix, down and across."""
        return -(-rows // self.tile[0]), -(-cols // self.tile[1])

    def nbytes(self, rows: int, cols: int) -> int:
        """Bytes of a matrix, padded to whole tiles."""
        return math.prod(self.grid(rows, cols)) * sum(p.nbytes for p in self.planes)

    def pack(self, codes: Tensor, pad: int = 0) -> Tensor:
        """codes [rows, cols], integers in [0, 2^bits) -> uint8 [nbytes]; `pad` is the code of places beyond the matrix.

        LayoutError for codes out of range and for anything but a matrix.
        """
        if not 0 <= pad < 2**self.bits:
            raise LayoutError(f"places beyond the matrix hold a code of {self.bits} bits; got {pad}")
        if codes.ndim != 2:
            raise LayoutError(f"codes to pack are [rows, cols]; got the shape {tuple(codes.shape)}")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**self.bits:
            raise LayoutError(
                f"codes of {self.bits} bits lie in [0, {2**self.bits}); got {int(codes.min())} to {int(codes.max())}"
            )
        down, across = self.grid(*codes.shape)
        high, wide = self.tile
        padded = np.full((down * high, across * wide), pad, self._dtype)
        padded[: codes.shape[0], : codes.shape[1]] = codes.cpu().numpy()
        tiles = padded.reshape(down, high, across, wide).transpose(0, 2, 1, 3)
        parts = []
        for p in self.planes:
            bits = np.empty((*tiles.shape, p.bits), np.uint8)
            for i in range(p.bits):
                bits[..., i] = tiles >> p.position + i & 1
            ordered = np.take(bits.reshape(down, across, 8 * p.nbytes), p.source(), axis=-1)
            parts.append(np.packbits(ordered, axis=-1, bitorder="little"))
        return torch.from_numpy(self._joined(parts))

    def unpack(self, data: Tensor, rows: int, cols: int) -> Tensor:
        """The codes [rows, cols] that `pack` made `data` of: uint8, int64 beyond 8 bits. LayoutError for another number of bytes."""
        if data.dtype != torch.uint8 or data.numel() != self.nbytes(rows, cols):
            raise LayoutError(
                f"a matrix of {rows} x {cols} takes {self.nbytes(rows, cols)} bytes as {self.name}; "
                f"got {data.numel()} of {str(data.dtype).removeprefix('torch.')}"
            )
        down, across = self.grid(rows, cols)
        high, wide = self.tile
        codes = np.zeros((down, across, high * wide), self._dtype)
        for p, part in zip(self.planes, self._split(data.cpu().numpy().reshape(-1), down, across), strict=True):
            found = np.unpackbits(part, axis=-1, bitorder="little")
            fields = np.take(found, np.argsort(p.source()), axis=-1).reshape(down, across, high * wide, p.bits)
            for i in range(p.bits):
                codes |= np.left_shift(fields[..., i].astype(self._dtype), p.position + i)
        whole = codes.reshape(down, across, high, wide).transpose(0, 2, 1, 3).reshape(down * high, across * wide)
        return torch.from_numpy(np.ascontiguousarray(whole[:rows, :cols]))

    def _joined(self, parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """[down, across, bytes] of every plane as one stream."""
        first, second, last = self.order.split()
        if first.startswith("col") or (first == "plane" and second == "col"):
            parts = [np.ascontiguousarray(part.transpose(1, 0, 2)) for part in parts]
        if last == "plane":
            return np.concatenate(parts, axis=2).reshape(-1)
        if second == "plane":
            return np.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1).reshape(-1)
        return np.concatenate([part.reshape(-1) for part in parts])

    def _split(self, stream: NDArray[np.uint8], down: int, across: int) -> list[NDArray[np.uint8]]:
        """The inverse of `_joined`."""
        first, second, last = self.order.split()
        columns = first.startswith("col") or (first == "plane" and second == "col")
        outer, inner = (across, down) if columns else (down, across)
        sizes = [p.nbytes for p in self.planes]
        shape = (outer, inner, -1) if last == "plane" else (outer, -1) if second == "plane" else (-1,)
        each = 1 if last == "plane" else inner if second == "plane" else outer * inner
        cuts = np.cumsum([size * each for size in sizes])[:-1]
        found = []
        for part, size in zip(np.split(stream.reshape(shape), cuts, axis=-1), sizes, strict=True):
            grid = part.reshape(outer, inner, size)
            found.append(np.ascontiguousarray(grid.transpose(1, 0, 2) if columns else grid))
        return found

    def __str__(self) -> str:
        planes = "; ".join(
            f"bits {p.position} to {p.position + p.bits - 1}: {p.layout}"
            + (f", bytes {p.memory}" if p.memory is not None else "")
            for p in self.planes
        )
        return f"{self.name}: tiles of {self.tile[0]} x {self.tile[1]}, {self.order}; {planes}"
