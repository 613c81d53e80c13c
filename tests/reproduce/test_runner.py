"""A miniature experiment from start to stored verdict: run, interrupt, go on, and the page that follows."""

import json
from dataclasses import replace

import numpy as np
import pytest

from anybit import reproduce
from anybit.errors import AnybitError
from anybit.reproduce.page import NOT_RUN
from anybit.reproduce.runner import data_folder, results_folder, run_experiment
from anybit.reproduce.study import Study, run_study

CALLS: list[tuple[str, int]] = []
DIES_AFTER: list[int] = []


def measure(condition: str, seed: int) -> dict[str, float]:
    """Mean squared error of rounding a random vector to a grid of step 1 (coarse) or 1/4 (fine)."""
    if DIES_AFTER and len(CALLS) >= DIES_AFTER[0]:
        raise KeyboardInterrupt
    CALLS.append((condition, seed))
    x = np.random.default_rng(seed).uniform(-8, 8, 4000)
    step = {"coarse": 1.0, "fine": 0.25}[condition]
    return {"mse": float(np.mean((np.round(x / step) * step - x) ** 2))}


def body(context, quick):
    study = Study("rounding", ["coarse", "fine"], list(range(2 if quick else 5)), measure)
    results = run_study(study, context.work / "rounding.jsonl", context.progress)
    return {"mse": results.summary(["mse"]), "ratio": results.median("coarse", "mse") / results.median("fine", "mse")}


# Uniform rounding error is step^2/12, so the ratio is 16.
EXPERIMENT = reproduce.Experiment(
    42,
    "pychop",
    "A grid four times finer has a sixteenth of the squared error.",
    "arithmetic",
    (reproduce.Check("ratio at least 15", "ratio", ">=", 15), reproduce.Check("ratio at most 17", "ratio", "<=", 17)),
    body,
    {"error ratio": "ratio"},
)


@pytest.fixture(autouse=True)
def fresh():
    CALLS.clear()
    DIES_AFTER.clear()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "docs" / "results"


def go(folder, **options):
    return run_experiment(options.pop("experiment", EXPERIMENT), results=folder, data=folder, **options)


def test_run_store_and_list(folder):
    folder.mkdir(parents=True)
    (folder.parent / "systems.md").write_text("old")
    seen = []
    result = go(folder, progress=lambda what, done, total: seen.append(done / total))
    assert result.verdict == "reproduced"
    assert result.figures["ratio"] == pytest.approx(16, abs=1)
    assert seen[0] == 0 and seen[-1] == 1
    assert json.loads((folder / "pychop.json").read_text())["verdict"] == "reproduced"
    assert [row["verdict"] for row in reproduce.listing(folder) if row["name"] == "pychop"] == ["reproduced"]
    assert (folder.parent / "systems.md").read_text() == reproduce.systems_page(folder)
    assert "error ratio 1" in reproduce.systems_page(folder)
    assert not (folder / ".partial" / "pychop").exists()


def test_an_interrupted_run_goes_on(folder):
    whole = go(folder).figures
    assert len(CALLS) == 10
    CALLS.clear()
    DIES_AFTER.append(7)
    with pytest.raises(KeyboardInterrupt):
        go(folder)
    DIES_AFTER.clear()
    CALLS.clear()
    assert go(folder).figures == whole
    assert len(CALLS) == 3


def test_quick_runs_are_smaller_and_kept_apart(folder):
    assert go(folder, quick=True).quick
    assert len(CALLS) == 4
    full = go(folder)
    go(folder, quick=True)
    assert json.loads((folder / "pychop.json").read_text())["figures"] == full.figures


def test_the_verdict_follows_the_checks(folder):
    wrong = reproduce.Check("ratio above 100", "ratio", ">", 100)
    assert go(folder, experiment=replace(EXPERIMENT, checks=(*EXPERIMENT.checks, wrong))).verdict == "partly"
    assert go(folder, experiment=replace(EXPERIMENT, checks=(wrong,))).verdict == "not reproduced"


def test_listing_has_all_62(tmp_path):
    rows = reproduce.listing(tmp_path)
    assert [row["number"] for row in rows] == list(range(1, 63))
    assert {row["verdict"] for row in rows} == {NOT_RUN}
    assert set(rows[0]) == {"number", "name", "verdict"}


def test_run_refuses_what_it_cannot_run(tmp_path):
    with pytest.raises(AnybitError, match="no system called"):
        reproduce.run("nothing_of_the_kind", results=tmp_path)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYBIT_RESULTS", str(tmp_path / "r"))
    monkeypatch.setenv("ANYBIT_DATA", str(tmp_path / "d"))
    assert results_folder() == tmp_path / "r"
    assert data_folder() == tmp_path / "d"
    monkeypatch.delenv("ANYBIT_RESULTS")
    assert results_folder().parts[-2:] == ("docs", "results")
