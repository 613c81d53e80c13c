"""Interleaving is checked with a clock that the test moves itself: no real time is measured."""

from __future__ import annotations

import pytest

from anybit.cli.bench.rounds import Sample, order, ratio, time_cases


class Clock:
    """A clock that only the cases move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def case(self, name: str, seconds: float):
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


def test_every_round_runs_every_case_in_rotated_order():
    clock = Clock()
    cases = {name: clock.case(name, 1.0) for name in "abc"}
    time_cases(cases, rounds=3, least_seconds=0.5, clock=clock)
    assert clock.calls[:6] == ["a", "a", "b", "b", "c", "c"]  # warm-up and calibration
    assert clock.calls[6:] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_short_cases_repeat_and_report_seconds_a_call():
    clock = Clock()
    found = time_cases({"short": clock.case("short", 0.001), "long": clock.case("long", 2.0)}, 2, 0.01, clock=clock)
    assert clock.calls.count("short") == 2 + 2 * 10
    assert found["short"].median == pytest.approx(0.001)
    assert found["long"].values == pytest.approx((2.0, 2.0))


def test_progress_counts_up_to_the_rounds():
    clock, seen = Clock(), []
    time_cases(
        {"a": clock.case("a", 1.0)}, 2, progress=lambda what, done, total: seen.append((done, total)), clock=clock
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_sample_statistics():
    sample = Sample((4.0, 1.0, 2.0, 3.0, 5.0))
    assert (sample.median, sample.least, sample.most) == (3.0, 1.0, 5.0)
    assert sample.spread == pytest.approx((4.0 - 2.0) / 3.0)  # quartiles of 1..5 are 2 and 4
    assert Sample((7.0,)).spread == 0.0
    assert sample.as_dict()["rounds"] == 5


def test_ratio_pairs_rounds():
    # a machine that halves its speed after round one changes neither pairwise ratio
    assert ratio(Sample((2.0, 4.0, 4.0)), Sample((1.0, 2.0, 2.0))) == 2.0
    with pytest.raises(ValueError, match="3 and 1 rounds"):
        ratio(Sample((1.0, 2.0, 3.0)), Sample((1.0,)))


def test_order_visits_all():
    assert [order(["a", "b"], n) for n in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


def test_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Sample(())
