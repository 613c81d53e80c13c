"""Run an experiment of the table: measure, judge, store, renew the page of systems."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from anybit.reproduce import page
from anybit.reproduce.catalogue import catalogue
from anybit.reproduce.experiment import Context, Experiment, Progress, silent
from anybit.reproduce.result import Result, cores, judge, load, store, write_whole
from anybit.reproduce.table import experiment
from anybit.zoo.data import checkout, data_folder


def results_folder() -> Path:
    """Where results lie: `ANYBIT_RESULTS`, else `docs/results` of the repository, else `anybit-results` in the working folder."""
    if chosen := os.environ.get("ANYBIT_RESULTS"):
        return Path(chosen)
    root = checkout()
    return root / "docs" / "results" if root else Path("anybit-results")


def run(
    name: str,
    quick: bool = False,
    progress: Progress = silent,
    *,
    results: Path | None = None,
    data: Path | None = None,
    threads: int | None = None,
) -> Result:
    """Run the experiment of a system (name or number), store its result and renew `systems.md` beside the results folder.

    quick: a smaller version under three minutes on two cores; its result never replaces a full one. threads: at most that many cores
    (all where None). An interrupted run goes on from its journal when it is started again.
    Raises AnybitError for an unknown system, one without an experiment, and missing data.
    """
    return run_experiment(experiment(name), quick, progress, results=results, data=data, threads=threads)


def run_experiment(
    chosen: Experiment,
    quick: bool = False,
    progress: Progress = silent,
    *,
    results: Path | None = None,
    data: Path | None = None,
    threads: int | None = None,
) -> Result:
    """`run` for an experiment given as a value, in the table or not."""
    folder = results or results_folder()
    work = folder / ".partial" / (f"{chosen.name}-quick" if quick else chosen.name)
    threads = threads or cores()
    started = time.perf_counter()
    figures = chosen.run(Context(data or data_folder(), work, threads, progress), quick)
    result = judge(chosen, figures, quick=quick, seconds=time.perf_counter() - started, threads=threads)
    stored = store(folder, result)
    # Only now is the journal of no more use.
    shutil.rmtree(work, ignore_errors=True)
    listed = folder.parent / "systems.md"
    if stored and listed.exists():
        write_whole(listed, page.systems_page(folder))
    return result


def listing(results: Path | None = None) -> list[dict[str, int | str]]:
    """number, name and verdict of all 62 systems; the verdict of one that has no result is `not yet run`."""
    folder = results or results_folder()
    rows: list[dict[str, int | str]] = []
    for system in catalogue():
        found = load(folder, system.name)
        rows.append({"number": system.number, "name": system.name, "verdict": found.verdict if found else page.NOT_RUN})
    return rows


def systems_page(results: Path | None = None) -> str:
    """The text of `docs/systems.md` for the stored results."""
    return page.systems_page(results or results_folder())
