"""A miniature experiment, the checks it declares, and the verdict that follows from them.

An experiment measures *figures* (numbers by name, nested as deeply as it likes). Its checks compare named figures with bounds, or with
one another; whether a claim counts as reproduced follows from the checks alone, never from prose.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from anybit.errors import AnybitError

Relation = Literal[">=", "<=", ">", "<", "=="]
Verdict = Literal["reproduced", "partly", "not reproduced"]
Figures = Mapping[str, Any]
Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total); done counts up to total within one `what`."""

RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}


def silent(what: str, done: int, total: int) -> None:
    """The progress function that says nothing."""


def figure(figures: Figures, path: str) -> float:
    """The number at a dotted path such as `accuracy.trace.median`.

    Raises AnybitError where the path leads nowhere or to something that is not a number.
    """
    value: Any = figures
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise AnybitError(f"the experiment measured no figure {path!r} ({part!r} is missing)")
        value = value[part]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnybitError(f"the figure {path!r} must be a number; got {type(value).__name__}")
    return float(value)


@dataclass(frozen=True)
class Outcome:
    """What a check found: the measured value, the bound it was held to, and whether it passed."""

    description: str
    measured: float
    relation: Relation
    bound: float
    passed: bool


@dataclass(frozen=True)
class Check:
    """`measured relation bound + margin`, declared before anything is measured.

    measured: path of a figure.  bound: a number, or the path of another figure.  margin: added to the bound, in the figure's unit.
    """

    description: str
    measured: str
    relation: Relation
    bound: float | str
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise AnybitError(f"a check's relation must be one of {', '.join(RELATIONS)}; got {self.relation!r}")

    def apply(self, figures: Figures) -> Outcome:
        """The outcome on these figures; a value that is not a number (nan) never passes."""
        measured = figure(figures, self.measured)
        bound = (figure(figures, self.bound) if isinstance(self.bound, str) else float(self.bound)) + self.margin
        passed = not math.isnan(measured) and not math.isnan(bound) and RELATIONS[self.relation](measured, bound)
        return Outcome(self.description, measured, self.relation, bound, passed)


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """`reproduced` where every check passed, `partly` where some did, `not reproduced` where none did (or there was none)."""
    passed = sum(outcome.passed for outcome in outcomes)
    if not passed:
        return "not reproduced"
    return "reproduced" if passed == len(outcomes) else "partly"


@dataclass(frozen=True)
class Context:
    """What a running experiment may use.

    data: folder of the shared models and data sets.  work: folder for its journal, which outlives an interruption.
    threads: how many cores it may keep busy.  progress: where it tells how far it is.
    """

    data: Path
    work: Path
    threads: int = 1
    progress: Progress = silent

    def file(self, relative: str) -> Path:
        """A file of the shared data; raises AnybitError that says how to point at the folder where it is missing."""
        path = self.data / relative
        if not path.exists():
            raise AnybitError(
                f"the experiment needs {relative}, which is not in {self.data}; set ANYBIT_DATA to the folder of the shared data"
            )
        return path


@dataclass(frozen=True)
class Experiment:
    """One paper in miniature.

    number, name, claim, source: as in the catalogue.  checks: what the claim means in figures.
    run(context, quick) -> figures: measures them; `quick` keeps it under three minutes on two cores.
    key_figures: label -> path of the few figures worth a place in the table of systems.
    """

    number: int
    name: str
    claim: str
    source: str
    checks: tuple[Check, ...]
    run: Callable[[Context, bool], Figures]
    key_figures: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self) -> None:
        if not self.checks:
            raise AnybitError(f"the experiment {self.name!r} declares no check, so no verdict could follow from it")
