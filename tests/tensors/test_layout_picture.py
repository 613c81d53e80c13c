"""The pictures say what the layouts do: cells are read back. docs/layouts.md shows them, and its examples are run."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from anybit.errors import LayoutError
from anybit.tensors.known_packings import PACKINGS, marlin
from anybit.tensors.layout import Layout, local, spatial
from anybit.tensors.layout_picture import draw, draw_bytes, draw_holders

ACCUMULATOR = local(2, 1) * spatial(8, 4) * local(1, 2)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "layouts.md"


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_cells_are_places_and_holders() -> None:
    table = cells(draw(ACCUMULATOR))
    assert table[0] == [str(i) for i in range(8)] and len(table) == 17
    for i, row in enumerate(table[1:]):
        assert row[0] == str(i)
        for j, cell in enumerate(row[1:]):
            thread, slot = map(int, cell.split(":"))
            assert ACCUMULATOR.indices()[thread, slot] == 8 * i + j
    for thread, row in enumerate(cells(draw_holders(ACCUMULATOR, rows=32))[1:]):
        for slot, cell in enumerate(row[1:]):
            i, j = map(int, cell.split(","))
            assert ACCUMULATOR.indices()[thread, slot] == 8 * i + j


def test_large_tiles_are_cut_and_say_so() -> None:
    table = cells(draw(local(40, 40), rows=2, columns=3))
    assert table == [
        ["0", "1", "2", "..."],
        ["0", "0:0", "0:1", "0:2", "..."],
        ["1", "0:40", "0:41", "0:42", "..."],
        ["..."],
    ]
    assert draw(Layout.parse("(a:2 b:2) -> b a")).splitlines()[1].split() == ["0", "0", "2", "1", "3"]
    with pytest.raises(LayoutError, match="tiles of one or two dimensions"):
        draw(local(2, 2, 2))
    with pytest.raises(LayoutError, match="one or two axes"):
        draw_holders(Layout.parse("(a:2) (b:2) (c:2) -> a | b | c"))


@pytest.mark.parametrize("name", PACKINGS)
def test_bytes_name_every_bit_once(name: str) -> None:
    packing = PACKINGS[name]()
    seen: set[tuple[int, int, int]] = set()
    for line in draw_bytes(packing, 1 << 12).splitlines():
        assert "..." not in line
        bits = 0
        for cell in line.split()[2:] if line.startswith("byte") else []:
            row, column, high, low = re.fullmatch(r"(\d+),(\d+)\.(\d+)(?:-(\d+))?", cell).groups()  # type: ignore[union-attr]
            found = {(int(row), int(column), b) for b in range(int(low or high), int(high) + 1)}
            assert not found & seen
            seen |= found
            bits += len(found)
        assert bits in (0, 8)
    assert len(seen) == packing.tile[0] * packing.tile[1] * packing.bits


def test_bytes_from_the_middle_of_a_tile() -> None:
    assert draw_bytes(marlin(), 2, start=4).splitlines() == [
        "byte 4  16,8.3-0  16,0.3-0", "byte 5  24,8.3-0  24,0.3-0", "... 512 bytes",
    ]  # fmt: skip


def test_the_page_shows_what_its_examples_print() -> None:
    blocks = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for code, shown in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, names)
        assert out.getvalue() == shown
