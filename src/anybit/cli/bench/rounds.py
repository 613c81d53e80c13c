"""Interleaved timing: every case runs once a round, so that whatever the machine does meanwhile hits all of them alike.

Medians over rounds are compared as ratios within one run; a figure of one run says little about a figure of another.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[], object]
Progress = Callable[[str, float, float], None]
WAKE = 0.002
"""Seconds of uncounted calls before a sample: threads that slept and what they compute with."""
LONG = 0.05
"""Seconds of a call beside which waking threads is nothing, so that it counts though it is the first."""


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
    start = round_number % max(1, len(names))
    return [*names[start:], *names[:start]]


class Cold:
    """Samples of one piece of work on several copies of its data, whose caches were cleared before: seconds a call.

    The first copy is called until threads are awake and code is warm, and not counted; the others are then called once each, until
    `least_seconds` have passed.  With one copy alone it is called again and again: its data stay in cache.  A first call of `LONG` seconds
    is a sample by itself.  Copies are called once ahead of all samples (`ready`), for libraries put off to the first use what they make of
    a weight; no more of them than twice what fills `least_seconds`.
    """

    def __init__(
        self, calls: Sequence[Case], least_seconds: float = 0.005, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if not calls:
            raise ValueError("there must be at least one copy to call")
        self.calls, self.least_seconds, self.clock = calls, least_seconds, clock
        self.called = 0
        """Copies that were called before."""

    def ready(self) -> float:
        """Call what samples will; seconds of the quickest call of the first copy, in cache. Nothing, and 0, where that was done."""
        if self.called:
            return 0.0
        self.calls[0]()
        self.called = 1
        first, least = self._wake()
        if first < LONG:
            self._reach(least)
        return least

    def __call__(self) -> float:
        self.ready()
        first, least = self._wake()
        if first >= LONG:
            return first
        copies = self.calls[1 : self._reach(least)] or itertools.repeat(self.calls[0])
        started = self.clock()
        number = 0
        for call in copies:
            call()
            number += 1
            took = self.clock() - started
            if took >= self.least_seconds:
                break
        return took / number

    def _wake(self) -> tuple[float, float]:
        """Seconds of the first and of the quickest call of the first copy, of as many as last `WAKE` together."""
        begun = self.clock()
        self.calls[0]()
        first = least = self.clock() - begun
        while self.clock() - begun < WAKE:
            called = self.clock()
            self.calls[0]()
            least = min(least, self.clock() - called)
        return first, least

    def _reach(self, seconds: float) -> int:
        """How many copies a sample gets to where a call takes so long, all of them called before."""
        reached = min(len(self.calls), 1 + math.ceil(2 * self.least_seconds / max(seconds, 1e-9)))
        for call in self.calls[self.called : reached]:
            call()
        self.called = max(self.called, reached)
        return reached


class Steady:
    """Samples of work done again and again: the median seconds of calls that last 20 ms together, after at least one call and 50 ms that
    are not counted.

    Whoever comes after the turns of others finds its data out of the caches, its pages out of the translation buffers and its cores clocked
    down: a plain copy of 64 MiB takes twice its time after 0.3 s of rest.  Work of 3 ms would be charged for that, work of 300 ms hardly;
    and of a mean of few calls, one that another machine of the same host interrupts makes something else.
    """

    def __init__(self, call: Case, clock: Callable[[], float] = time.perf_counter) -> None:
        self.call, self.clock = call, clock

    def __call__(self) -> float:
        self._until(0.05)
        return statistics.median(self._until(0.02))

    def _until(self, seconds: float) -> list[float]:
        took: list[float] = []
        begun = self.clock()
        while not took or sum(took) < seconds:
            self.call()
            now = self.clock()
            took.append(now - begun)
            begun = now
        return took


def interleave(
    samplers: Mapping[str, Callable[[], float]],
    rounds: int,
    progress: Progress = silent,
    each_round: Callable[[], object] | None = None,
    before: Callable[[], object] | None = None,
) -> dict[str, Sample]:
    """What every sampler gives over `rounds` rounds in rotated order; `each_round` is called at the start of each, `before` ahead of
    every sampler, and what is `Cold` is made ready ahead of all, so that no sample finds in cache what was just called."""
    for sampler in samplers.values():
        if isinstance(sampler, Cold):
            sampler.ready()
    values: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}", number, rounds)
        if each_round is not None:
            each_round()
        for name in order(list(samplers), number):
            if before is not None:
                before()
            values[name].append(samplers[name]())
    progress("done", rounds, rounds)
    return {name: Sample(tuple(sample)) for name, sample in values.items()}
