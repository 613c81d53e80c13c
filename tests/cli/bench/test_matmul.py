"""Bookkeeping of the matrix benchmark: shares and ratios of made-up times are worked out by hand."""

from __future__ import annotations

import pytest

from anybit.cli.bench import matmul
from anybit.cli.bench.matmul import Line, Shape
from anybit.cli.bench.rounds import Sample
from anybit.errors import AnybitError


def test_shape():
    assert Shape.parse("1x4096x11008") == Shape(1, 4096, 11008)
    assert str(Shape(2, 3, 4)) == "2x3x4"
    assert Shape(2, 3, 4).operations == 48


@pytest.mark.parametrize("text", ["", "1x2", "0x2x3", "ax2x3", "1x2x3x4", "-1x2x3"])
def test_bad_shape(text):
    with pytest.raises(AnybitError, match="MxNxK"):
        Shape.parse(text)


def test_copies_leave_the_cache():
    assert matmul.copies(10, 100, cold=True) == 20
    assert matmul.copies(1000, 100, cold=True) == 1
    assert matmul.copies(1, 10**9, cold=True) == matmul.MOST_COPIES
    assert matmul.copies(10, 100, cold=False) == 1


def test_rotation():
    seen = []
    case = matmul.rotating([lambda: seen.append(0), lambda: seen.append(1)])
    for _ in range(5):
        case()
    assert seen == [0, 1, 0, 1, 0]


def test_rates():
    line = Line(Shape(1, 1000, 1000), "int4/row", 500_000, Sample((1e-3,)), None, None, None, None)
    assert line.bandwidth == pytest.approx(5e8)
    assert line.rate == pytest.approx(2e9)


def test_shares_of_made_up_times(monkeypatch):
    times = {"int4/row": (0.001, 0.002), "torch fp32": (0.008, 0.016), "torch bf16": (0.004, 0.008)}

    def timed(cases, rounds, progress, each_round):
        for _ in range(rounds):
            each_round()
        return {name: Sample(times[name]) for name in cases}

    monkeypatch.setattr(matmul, "cases", lambda *_: (dict.fromkeys(times), dict.fromkeys(times, 600)))
    monkeypatch.setattr(matmul, "time_cases", timed)
    bandwidths = iter([1_200_000.0, 600_000.0])
    lines = matmul.measure(Shape(1, 10, 10), ["int4/row"], None, 2, 0, True, lambda: next(bandwidths), 400_000.0)
    ours = next(line for line in lines if line.name == "int4/row")
    assert ours.read_share == pytest.approx(0.5)  # 600 bytes in 1 ms of 1.2 MB/s, in 2 ms of 0.6 MB/s
    assert ours.peak_share == pytest.approx(200 / 0.0015 / 400_000)
    assert ours.over_fp32 == pytest.approx(8)
    assert ours.over_bf16 == pytest.approx(4)
    assert ours.floor == pytest.approx(600 / 900_000)  # reading takes longer than 200 operations at 0.4 MOP/s
    row = ours.as_dict()
    assert (row["format"], row["best_peer"]) == ("int4/row", "torch bf16")
    assert row["us"] == pytest.approx(1500)
    assert row["floor_us"] == pytest.approx(1e6 * 600 / 900_000)
    assert row["best_peer_us"] == pytest.approx(6000)
