"""Layouts drawn as text: what every element of a tile is given as its place, and what every place in memory holds."""

from __future__ import annotations

from collections.abc import Sequence

from anybit.errors import LayoutError
from anybit.tensors.layout import Layout
from anybit.tensors.tiled_packing import Packing


def draw(layout: Layout, rows: int = 16, columns: int = 16) -> str:
    """A tile of one or two dimensions as a table of places, at most `rows` by `columns` of it.

    A cell is the number along every axis, `thread:slot` for registers; of replicas the first. LayoutError for more dimensions.

        >>> print(draw(Layout.parse("local(2, 1).spatial(2, 2).local(1, 2)")))
           0    1    2    3
        0  0:0  0:1  1:0  1:1
        1  2:0  2:1  3:0  3:1
        2  0:2  0:3  1:2  1:3
        3  2:2  2:3  3:2  3:3
    """
    if not 1 <= len(layout.shape) <= 2:
        raise LayoutError(f"tiles of one or two dimensions can be drawn; got {layout.shape} (reshape joins dimensions)")
    high, wide = layout.shape if len(layout.shape) == 2 else (1, layout.shape[0])
    where = layout.where().reshape(high, wide)
    table = [["", *map(str, range(wide))]]
    for i, row in enumerate(where.tolist()):
        table.append([str(i), *(_place(number, layout.places) for number in row)])
    return _columns(table, rows, columns)


def draw_holders(layout: Layout, rows: int = 16, columns: int = 16) -> str:
    """What every place holds: a row a place of the first axis, a column one of the second, cells the index `row,column`.

    LayoutError for layouts of more than two axes.
    """
    if not 1 <= len(layout.axes) <= 2:
        raise LayoutError(f"places along one or two axes can be drawn; got {layout.places} (regroup joins axes)")
    high, wide = layout.places if len(layout.axes) == 2 else (1, layout.places[0])
    held = layout.indices().reshape(high, wide)
    table = [["", *map(str, range(wide))]]
    for i, row in enumerate(held.tolist()):
        table.append([str(i), *(_place(number, layout.shape, ",") for number in row)])
    return _columns(table, rows, columns)


def draw_bytes(packing: Packing, count: int = 16, start: int = 0) -> str:
    """The first `count` bytes of a tile, one a line, bit 7 on the left: `row,column.bit` of the code each bit belongs to.

    Neighbouring bits of one code are drawn once, as `row,column.high-low`.
    """
    lines = []
    for number, plane in enumerate(packing.planes):
        source = plane.source().reshape(-1, 8)
        head = f"plane {number} (bits {plane.position} to {plane.position + plane.bits - 1})"
        if len(packing.planes) > 1:
            lines.append(head)
        table = []
        for at in range(start, min(start + count, len(source))):
            bits = [divmod(int(n), plane.bits) for n in source[at][::-1]]
            table.append([f"byte {at}", *_runs(bits, packing.tile[1], plane.position)])
        lines.append(_columns(table, count, 99, header=False))
        if start + count < len(source):
            lines.append(f"... {len(source)} bytes")
    return "\n".join(lines)


def _runs(bits: Sequence[tuple[int, int]], wide: int, position: int) -> list[str]:
    """(element, bit) from the highest place of a byte to the lowest, runs of falling bits of an element as one."""
    cells: list[tuple[int, int, int]] = []
    for element, bit in bits:
        if cells and cells[-1][0] == element and cells[-1][2] == bit + 1:
            cells[-1] = (element, cells[-1][1], bit)
        else:
            cells.append((element, bit, bit))
    return [
        f"{element // wide},{element % wide}.{high + position}" + (f"-{low + position}" if low != high else "")
        for element, high, low in cells
    ]


def _place(number: int, sizes: Sequence[int], joint: str = ":") -> str:
    parts: list[str] = []
    for size in reversed(sizes):
        number, digit = divmod(number, size)
        parts.append(str(digit))
    return joint.join(reversed(parts))


def _columns(table: list[list[str]], rows: int, columns: int, header: bool = True) -> str:
    """Aligned text; rows and columns beyond the limits are left out and said to be."""
    body = rows + header
    cut = [row[: columns + 1] + (["..."] if len(row) > columns + 1 else []) for row in table[:body]]
    widths = [max(len(row[i]) for row in cut if i < len(row)) for i in range(max(map(len, cut)))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in cut]
    if len(table) > body:
        lines.append("...")
    return "\n".join(lines)
