"""Bookkeeping of the format benchmark with made-up libraries and clocks; the figures are worked out by hand."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from anybit.cli.bench import formats
from anybit.cli.bench.formats import Case, Line, Theirs
from anybit.cli.bench.rounds import Sample
from anybit.formats import TensorFormat, get


class Fake:
    """A library that takes so many seconds for so many of the elements, and only knows fp16."""

    def __init__(self, seconds: float, elements: int) -> None:
        self.answer, self.asked = {"seconds": seconds, "elements": elements}, 0

    def ask(self, request: str) -> dict:
        self.asked += 1
        return self.answer if json.loads(request) == {"format": "fp16", "mode": "up"} else {"lacks": "all but fp16"}


def test_bytes_moved():
    assert Case("fp16", "up").moved((4, 32)) == 8 * 128
    # 4-bit codes and one byte of scale for 32 numbers; NVFP4 has one for 16 and a float32 for everything
    assert Case("mxfp4", "up").moved((4, 32)) == 4 * 128 + 64 + 4
    assert Case("nvfp4", "up").moved((4, 32)) == 4 * 128 + 64 + 8 + 4


def test_every_format_meets_every_mode_once():
    found = formats.cases(("fp16", "mxfp4"), ("up", "odd"))
    assert [(case.format, case.mode) for case in found] == [("fp16", "up"), ("fp16", "odd"), ("mxfp4", "up"), ("mxfp4", "odd")]  # fmt: skip
    assert len(formats.cases()) == 9 * 11


def test_our_side_does_the_case():
    x = np.random.default_rng(0).standard_normal((8, 64), dtype=np.float32)
    assert np.array_equal(Case("e5m2", "odd").call(x)(), get("e5m2").round(x, "odd"))
    assert np.array_equal(Case("fp16", "stochastic").call(x)(), get("fp16").round(x, "stochastic", formats.KEY))
    assert Case("mxfp4", "nearest_even").call(x)().format == TensorFormat.parse("mxfp4")


def test_times_are_scaled_and_paired():
    ticks = itertools.count()
    slow, lacking = Fake(2.0, 1024), Fake(1.0, 1)
    x = np.zeros((64, 64), np.float32)
    line = formats.measure_case(
        Case("fp16", "up"), x, 3, {"slow": slow}, read_bandwidth=lambda: 1024.0, clock=lambda: float(next(ticks))
    )
    # the clock ticks once a look: around calls of ours that count, one; a quarter of the elements in 2 s is 8 s for all
    assert line.seconds.values == (1.0, 1.0, 1.0)
    assert line.theirs["slow"].seconds.values == (8.0, 8.0, 8.0)
    assert line.theirs["slow"].ratio == 8.0 and line.theirs["slow"].elements == 1024
    assert line.floor == 8 * 4096 / 1024.0 and line.floor_share == 32.0
    assert slow.asked == 4  # once to hear whether it can
    document = line.as_dict()
    assert document["libraries"]["slow"]["scaled"] is True and document["floor_seconds"] == 32.0
    other = formats.measure_case(Case("bf16", "up"), x, 1, {"slow": lacking})
    assert other.theirs == {} and other.floor is None and other.floor_share is None


def line(fmt: str, ratios: dict[str, float]) -> Line:
    theirs = {name: Theirs(Sample((value,)), 1, value) for name, value in ratios.items()}
    return Line(Case(fmt, "up"), 1, Sample((1.0,)), None, theirs)


def test_verdicts():
    found = formats.verdicts([line("fp16", {"pychop": 40.0, "torch": 2.0}), line("bf16", {"pychop": 20.0})])
    pychop, torch = found
    assert (pychop.library, pychop.cases, pychop.met, pychop.median, pychop.least) == ("pychop", 2, 1, 30.0, 20.0)
    assert pychop.worst == Case("bf16", "up") and pychop.bar == 30
    assert (torch.library, torch.met, torch.bar) == ("torch", 1, None)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_the_formats_exist(name):
    assert Case(name, "nearest_even").block == (name in ("mxfp4", "nvfp4"))
    Case(name, "nearest_even").call(np.ones((2, 64), np.float32))()
