"""Interleaved timing: every case runs once a round, so that whatever the machine does meanwhile hits all of them alike.

Medians over rounds are compared as ratios within one run; a figure of one run says little about a figure of another.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[], object]
Progress = Callable[[str, float, float], None]


def silent(what: str, done: float, total: float) -> None:
    """The progress function that says nothing."""


@dataclass(frozen=True)
class Sample:
    """Measurements of one case, one a round, in one unit (seconds a call, or tokens a second)."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a sample needs at least one value")

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)

    @property
    def spread(self) -> float:
        """(third quartile - first quartile) / median; 0 for fewer than two values."""
        if len(self.values) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.values, n=4, method="inclusive")
        return (third - first) / self.median

    def as_dict(self) -> dict[str, float]:
        """median, min, max, spread and the number of rounds."""
        return {
            "median": self.median,
            "min": self.least,
            "max": self.most,
            "spread": self.spread,
            "rounds": len(self.values),
        }


def ratio(numerator: Sample, denominator: Sample) -> float:
    """The median over rounds of numerator / denominator, pairing values of the same round."""
    if len(numerator.values) != len(denominator.values):
        raise ValueError(f"samples of {len(numerator.values)} and {len(denominator.values)} rounds cannot be paired")
    return statistics.median(a / b for a, b in zip(numerator.values, denominator.values, strict=True))


def order(names: Sequence[str], round_number: int) -> list[str]:
    """The order of a round: rotated by one each time, so that no case always follows the same other."""
    start = round_number % len(names)
    return [*names[start:], *names[:start]]


def time_cases(
    cases: Mapping[str, Case],
    rounds: int,
    least_seconds: float = 0.005,
    progress: Progress = silent,
    each_round: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Sample]:
    """Seconds a call of every case over `rounds` interleaved rounds; `each_round` is called at the start of each.

    A case is called as often within a sample as lasts `least_seconds`, judged by a warm-up call that is not counted.
    """
    calls: dict[str, int] = {}
    for name, case in cases.items():
        case()  # first call: allocations, page faults, lazily made plans
        started = clock()
        case()
        calls[name] = max(1, math.ceil(least_seconds / max(clock() - started, 1e-9)))
    values: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}", number, rounds)
        if each_round is not None:
            each_round()
        for name in order(list(cases), number):
            case = cases[name]
            started = clock()
            for _ in range(calls[name]):
                case()
            values[name].append((clock() - started) / calls[name])
    progress("done", rounds, rounds)
    return {name: Sample(tuple(sample)) for name, sample in values.items()}
