"""Results of experiments: one JSON file each under `docs/results/`, written in one step, never replaced by a quicker one.

{"name", "number", "claim", "source", "verdict", "quick", "date", "seconds",
 "checks": [{"description", "measured", "relation", "bound", "passed"}],
 "key_figures": {label: value}, "figures": {...}, "notes",
 "machine": {"cores", "isa", "threads"}, "versions": {package: version}}
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from anybit.errors import AnybitError
from anybit.reproduce.experiment import Experiment, Figures, Outcome, Verdict, figure, verdict

PACKAGES = ("numpy", "scipy", "torch", "transformers")


@dataclass(frozen=True)
class Result:
    """What one run of an experiment found; `to_json` gives the stored form, `from_json` checks and reads it."""

    name: str
    number: int
    claim: str
    source: str
    verdict: Verdict
    quick: bool
    date: str
    seconds: float
    checks: tuple[Outcome, ...]
    key_figures: Mapping[str, float]
    figures: Figures
    notes: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """The stored text; numbers that are not finite become null, which JSON can say."""
        return json.dumps(finite(asdict(self)), indent=1, sort_keys=False, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "the result") -> Result:
        """Read a stored result; raises AnybitError naming `where` and what is wrong, also where the verdict and checks disagree."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise AnybitError(f"{where} is not JSON: {error}") from None
        if not isinstance(data, dict) or set(data) != set(FIELDS):
            found = sorted(set(FIELDS) ^ set(data)) if isinstance(data, dict) else type(data).__name__
            raise AnybitError(f"{where} must be an object with the fields {', '.join(FIELDS)}; wrong: {found}")
        try:
            numbers = [{key: number(row[key]) for key in ("measured", "bound")} for row in data["checks"]]
            checks = tuple(Outcome(**{**row, **both}) for row, both in zip(data["checks"], numbers, strict=True))
        except (TypeError, KeyError) as error:
            raise AnybitError(f"{where} has a check of another form: {error}") from None
        if data["verdict"] not in get_args(Verdict) or data["verdict"] != verdict(checks):
            raise AnybitError(
                f"{where} says {data['verdict']!r}, but its {len(checks)} checks give {verdict(checks)!r}; run it again"
            )
        return Result(**{**data, "checks": checks})


FIELDS = tuple(field.name for field in fields(Result))


def number(value: float | None) -> float:
    """A stored number; null stands for one that is not finite."""
    return math.nan if value is None else float(value)


def finite(value: Any) -> Any:
    """The same structure in plain Python types, with nan and infinities replaced by None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, bool | str) or value is None or isinstance(value, int):
        return value
    as_float = float(value)
    return as_float if math.isfinite(as_float) else None


def judge(experiment: Experiment, figures: Figures, *, quick: bool, seconds: float, threads: int) -> Result:
    """Apply the experiment's checks to what it measured."""
    outcomes = tuple(check.apply(figures) for check in experiment.checks)
    return Result(
        name=experiment.name,
        number=experiment.number,
        claim=experiment.claim,
        source=experiment.source,
        verdict=verdict(outcomes),
        quick=quick,
        date=datetime.now(UTC).date().isoformat(),
        seconds=round(seconds, 1),
        checks=outcomes,
        key_figures={label: figure(figures, path) for label, path in experiment.key_figures.items()},
        figures=finite(figures),
        notes=experiment.notes,
        machine={"cores": cores(), "isa": instruction_set(), "threads": threads},
        versions=versions(),
    )


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instruction_set() -> str:
    """The instruction set that anybit's kernels run with; "none" without the native module."""
    from anybit.ops import native  # loads torch

    module = native.load()
    return "none" if module is None else str(module.isa())


def versions() -> dict[str, str]:
    """The versions a result depends on: Python, anybit and the numeric packages installed."""
    from anybit import __version__

    found = {"python": platform.python_version(), "anybit": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load(folder: Path, name: str) -> Result | None:
    """The stored result of `name`, or None where it was not run yet."""
    path = folder / f"{name}.json"
    return Result.from_json(path.read_text(encoding="utf-8"), str(path)) if path.exists() else None


def store(folder: Path, result: Result) -> Path | None:
    """Write the result in one step and return its path; None (nothing written) where a quick one would replace a full one."""
    earlier = load(folder, result.name)
    if result.quick and earlier is not None and not earlier.quick:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.name}.json"
    write_whole(path, result.to_json())
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part: a temporary neighbour, then a rename."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
