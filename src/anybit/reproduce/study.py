"""The study runner: every condition measured with the same seeds, kept in a journal, compared in pairs.

A study is a grid conditions x seeds. Each cell gives a few named numbers. The journal holds one line a finished cell, so that a study
that was interrupted goes on where it stopped; its first line is a fingerprint that guards against going on with another study.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anybit.errors import AnybitError
from anybit.reproduce.bootstrap import Interval, Method, Statistic, interval
from anybit.reproduce.experiment import Progress, silent

Measure = Callable[[str, int], Mapping[str, float]]
Cell = tuple[str, int]


@dataclass(frozen=True)
class Study:
    """What is measured: `measure(condition, seed) -> {metric: number}` for every pair of the two lists.

    settings: whatever else the numbers depend on (data, model, options); it goes into the fingerprint.
    """

    name: str
    conditions: Sequence[str]
    seeds: Sequence[int]
    measure: Measure
    settings: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, items in (("condition", self.conditions), ("seed", self.seeds)):
            if not items or len(set(items)) != len(items):
                raise AnybitError(
                    f"the study {self.name!r} needs at least one {what} and each only once; got {list(items)}"
                )

    def fingerprint(self) -> str:
        """A digest of the study's name, grid and settings."""
        grid = [self.name, list(self.conditions), list(self.seeds), dict(self.settings)]
        return hashlib.sha256(json.dumps(grid, sort_keys=True, default=str).encode()).hexdigest()


class Difference(NamedTuple):
    """Condition a minus condition b over common seeds: the statistic, its interval, and the share of seeds in which a is larger."""

    value: float
    low: float
    high: float
    larger: float


@dataclass(frozen=True)
class Results:
    """The finished grid: cells[(condition, seed)][metric]."""

    conditions: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[Cell, Mapping[str, float]]

    def values(self, condition: str, metric: str) -> NDArray[np.float64]:
        """The metric for each seed, in the order of `seeds`."""
        try:
            return np.array([self.cells[condition, seed][metric] for seed in self.seeds])
        except KeyError as error:
            raise AnybitError(f"the study measured no {error.args[0]!r} for {condition!r} / {metric!r}") from None

    def median(self, condition: str, metric: str) -> float:
        """The median over seeds."""
        return float(np.median(self.values(condition, metric)))

    def interval(
        self, condition: str, metric: str, statistic: Statistic = np.median, level: float = 0.95, method: Method = "bca"
    ) -> Interval:
        """Bootstrap interval over seeds."""
        return interval(self.values(condition, metric), statistic, level, method)

    def difference(
        self, a: str, b: str, metric: str, statistic: Statistic = np.median, level: float = 0.95, method: Method = "bca"
    ) -> Difference:
        """Paired difference a - b: what the two conditions share through a seed cancels."""
        paired = self.values(a, metric) - self.values(b, metric)
        return Difference(*interval(paired, statistic, level, method), larger=float((paired > 0).mean()))

    def summary(self, metrics: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
        """condition -> metric -> {median, low, high}, as an experiment stores it among its figures."""
        return {
            condition: {
                metric: dict(zip(("median", "low", "high"), self.interval(condition, metric), strict=True))
                for metric in metrics
            }
            for condition in self.conditions
        }


def run_study(study: Study, journal: Path | None = None, progress: Progress = silent) -> Results:
    """Measure every cell that the journal does not hold yet, seed by seed, and return the whole grid.

    A cell is written to the journal before the next one starts; a last line torn by a crash is measured again.
    Raises AnybitError for a journal of another study and for a measured value that is not a finite number.
    """
    done = _open(journal, study) if journal else {}
    # All conditions of a seed first: after an interruption whole pairs are there, and slow drifts of the machine hit all alike.
    cells = [(condition, seed) for seed in study.seeds for condition in study.conditions]
    for count, (condition, seed) in enumerate(cells):
        progress(f"{study.name}: {condition}, seed {seed}", count, len(cells))
        if (condition, seed) not in done:
            measured = {key: float(value) for key, value in study.measure(condition, seed).items()}
            if not all(np.isfinite(value) for value in measured.values()):
                raise AnybitError(f"the study {study.name!r} measured {measured} for {condition!r}, seed {seed}")
            done[condition, seed] = measured
            if journal:
                _append(journal, {"condition": condition, "seed": seed, "measured": measured})
    progress(study.name, len(cells), len(cells))
    return Results(tuple(study.conditions), tuple(study.seeds), done)


def _open(journal: Path, study: Study) -> dict[Cell, dict[str, float]]:
    """The cells of an earlier run; starts a new journal where there is none."""
    header = {"study": study.name, "fingerprint": study.fingerprint()}
    *lines, torn = journal.read_bytes().split(b"\n") if journal.exists() else [b""]
    if torn:
        # The crash came inside a line: drop it, so that the next line starts clean.
        with journal.open("r+b") as file:
            file.truncate(journal.stat().st_size - len(torn))
    if not lines:
        journal.parent.mkdir(parents=True, exist_ok=True)
        _append(journal, header)
        return {}
    try:
        entries = [json.loads(line) for line in lines]
        if entries[0] != header:
            raise AnybitError(f"{journal} belongs to another study or other settings; delete it to start anew")
        return {(row["condition"], row["seed"]): row["measured"] for row in entries[1:]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise AnybitError(f"{journal} is damaged ({error}); delete it to start anew") from None


def _append(journal: Path, entry: Mapping[str, object]) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())
