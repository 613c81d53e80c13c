"""Drawing: the file is a picture of its kind, with and without a measured bandwidth; other suffixes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from anybit.cli.bench import roofline_picture
from anybit.cli.bench.matmul import Line, Shape
from anybit.cli.bench.roofline_picture import Panel
from anybit.cli.bench.rounds import Sample
from anybit.errors import AnybitError


def line(engine: str, size: int, floor: float | None) -> Line:
    return Line(Shape(2, 100, 100), engine, f"{engine} {size}", size, "int8", Sample((1e-5,)), floor)


def test_bandwidth_is_that_of_the_floors():
    assert (
        roofline_picture.bandwidth([line("anybit", 1000, 1e-3), line("ggml", 4000, 2e-3), line("x", 9000, 3e-3)]) == 2e6
    )
    assert roofline_picture.bandwidth([line("anybit", 1000, None)]) is None


@pytest.mark.parametrize("suffix", roofline_picture.SUFFIXES)
def test_pictures(tmp_path, suffix):
    path = tmp_path / "new" / f"roofline{suffix}"
    panels = [
        Panel(1, [line("anybit", 1000, 1e-5), line("ggml", 20_000, 2e-5)], {"int8": 1e12, "int8_tiles": 8e12}),
        Panel(2, [line("anybit", 1000, None)], {"fp32": 1e11}),
    ]
    roofline_picture.draw(path, panels)
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    if suffix == ".svg":
        assert path.read_text().count('id="axes_') == 2  # a panel for each number of threads
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_other_suffixes_are_refused():
    with pytest.raises(AnybitError, match=r"\.png or \.svg; got a\.gif"):
        roofline_picture.draw(Path("a.gif"), [])
