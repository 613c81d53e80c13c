"""Interleaving is checked with a clock that the test moves itself: no real time is measured."""

from __future__ import annotations

import pytest

from anybit.cli.bench.rounds import LONG, Cold, Sample, Steady, interleave, order, ratio


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


def test_every_round_runs_every_sampler_in_rotated_order():
    calls: list[str] = []

    def sampler(name: str):
        def take() -> float:
            calls.append(name)
            return float(len(calls))

        return take

    found = interleave(
        {name: sampler(name) for name in "abc"},
        3,
        each_round=lambda: calls.append("|"),
        before=lambda: calls.append("."),
    )
    assert "".join(calls) == "|.a.b.c|.b.c.a|.c.a.b"
    assert found["a"].values == (3.0, 14.0, 19.0)


def test_progress_counts_up_to_the_rounds():
    seen = []
    interleave({"a": lambda: 1.0}, 2, progress=lambda what, done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_cold_samples_call_every_counted_copy_once():
    clock = Clock()
    sample = Cold(
        [clock.case(name, seconds) for name, seconds in (("a", 0.0015), ("b", 0.01), ("c", 0.03))], 0.1, clock
    )
    assert sample() == pytest.approx(0.02)  # the mean of b and c; a was called until threads were awake
    assert "".join(clock.calls) == "aaabc" + "aabc"  # all once ahead of the first sample
    assert sample() == pytest.approx(0.02) and "".join(clock.calls[9:]) == "aabc"


def test_cold_samples_end_when_they_have_lasted_long_enough():
    clock = Clock()
    sample = Cold([clock.case(name, 0.01) for name in "abcdefg"], 0.015, clock)
    assert sample() == pytest.approx(0.01)
    assert "".join(clock.calls) == "aabcd" + "abc"  # no sample gets to e, f and g


def test_copies_are_called_first_when_a_sample_gets_to_them():
    clock = Clock()
    durations = [0.03, 0.03]  # the first calls are interrupted

    def first() -> None:
        clock.case("a", durations.pop() if durations else 0.005)()

    sample = Cold([first, *(clock.case(name, 0.005) for name in "bcdef")], 0.015, clock)
    assert sample() == pytest.approx(0.005)
    assert "".join(clock.calls) == "aab" + "acdefbcd"  # once ready: one copy, then all of them
    sample()
    assert "".join(clock.calls[11:]) == "abcd"


def test_a_long_call_is_a_sample_by_itself():
    clock = Clock()
    sample = Cold([clock.case("a", 1.1 * LONG), clock.case("b", 1.0)], 1.0, clock)
    assert [sample(), sample()] == pytest.approx([1.1 * LONG, 1.1 * LONG])
    assert "".join(clock.calls) == "aaaa"  # two to make it ready


def test_cold_samplers_are_ready_before_caches_are_cleared():
    clock = Clock()
    sample = Cold([clock.case("a", 0.003), clock.case("b", 0.003)], 0.003, clock)
    interleave({"x": sample}, 2, before=lambda: clock.calls.append("|"))
    assert "".join(clock.calls) == "aab|ab|ab"


def test_a_copy_alone_is_called_again_and_again():
    clock = Clock()
    assert Cold([clock.case("a", 0.03125)], 0.125, clock)() == 0.03125
    assert len(clock.calls) == 2 + 1 + 4
    with pytest.raises(ValueError, match="at least one copy"):
        Cold([])


def test_steady_samples_leave_out_what_comes_after_a_rest_and_interruptions():
    clock = Clock()
    durations = [0.04, 0.03, 0.005, 0.011, 0.006, 0.06, 0.007]

    def call() -> None:
        clock.case("a", durations.pop(0))()

    sample = Steady(call, clock)
    assert sample() == pytest.approx(0.006)  # two calls for 50 ms, then three for 20
    assert len(durations) == 2
    durations.append(0.02)
    assert sample() == pytest.approx(0.0135)  # one for 50 ms, then two
    assert not durations


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
    assert order([], 3) == []


def test_empty_sample_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Sample(())
