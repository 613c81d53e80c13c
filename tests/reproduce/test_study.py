"""The study runner: paired cells, resuming after a crash at any byte, refusal of other studies' journals."""

import numpy as np
import pytest

from anybit.errors import AnybitError
from anybit.reproduce.bootstrap import interval
from anybit.reproduce.study import Study, run_study


class Counting:
    """A measurement whose seed gives a shift common to both conditions; it counts its calls and can die at one."""

    def __init__(self, dies_at=None):
        self.calls, self.dies_at = [], dies_at

    def __call__(self, condition, seed):
        if len(self.calls) == self.dies_at:
            raise KeyboardInterrupt
        self.calls.append((condition, seed))
        shift = 100 * np.random.default_rng(seed).normal()
        return {"loss": shift + {"a": 1.0, "b": 0.0}[condition] + 0.01 * seed * (condition == "a"), "seed": seed}


def study(measure, **settings):
    return Study("toy", ["a", "b"], [0, 1, 2, 3, 4], measure, settings)


def test_pairs_cancel_the_seed():
    results = run_study(study(Counting()))
    found = results.difference("a", "b", "loss")
    assert found.value == pytest.approx(1.02)
    assert 1.0 - 1e-9 <= found.low <= found.high <= 1.04 + 1e-9
    assert found.larger == 1.0
    assert results.difference("b", "a", "loss").larger == 0.0
    wide = results.interval("a", "loss")
    assert wide.high - wide.low > 10 * (found.high - found.low)


def test_summary_is_median_and_interval():
    results = run_study(study(Counting()))
    values = results.values("a", "loss")
    summary = results.summary(["loss"])["a"]["loss"]
    assert summary == dict(zip(("median", "low", "high"), interval(values), strict=True))
    assert summary["median"] == np.sort(values)[2] == results.median("a", "loss")


def test_seed_by_seed_so_that_pairs_are_whole():
    measure = Counting()
    run_study(study(measure))
    assert measure.calls[:4] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


@pytest.mark.parametrize("dies_at", [0, 1, 5, 9])
def test_resumes_where_it_stopped(tmp_path, dies_at):
    journal, whole = tmp_path / "work" / "journal.jsonl", run_study(study(Counting()))
    with pytest.raises(KeyboardInterrupt):
        run_study(study(Counting(dies_at)), journal)
    rest = Counting()
    resumed = run_study(study(rest), journal)
    assert len(rest.calls) == 10 - dies_at
    assert resumed.cells == whole.cells
    again = Counting()
    assert run_study(study(again), journal).cells == whole.cells
    assert again.calls == []


def test_resumes_from_a_journal_torn_at_any_byte(tmp_path):
    journal, whole = tmp_path / "journal.jsonl", run_study(study(Counting()))
    run_study(study(Counting()), journal)
    text = journal.read_bytes()
    for cut in range(0, len(text), 13):
        journal.write_bytes(text[:cut])
        assert run_study(study(Counting()), journal).cells == whole.cells
        assert sorted(journal.read_bytes().split(b"\n")) == sorted(text.split(b"\n"))


def test_another_study_is_refused(tmp_path):
    journal = tmp_path / "journal.jsonl"
    run_study(study(Counting(), data="x"), journal)
    with pytest.raises(AnybitError, match="another study"):
        run_study(study(Counting(), data="y"), journal)


def test_damage_in_the_middle_is_refused(tmp_path):
    journal = tmp_path / "journal.jsonl"
    run_study(study(Counting()), journal)
    lines = journal.read_text().split("\n")
    journal.write_text("\n".join([*lines[:3], lines[3][:-4], *lines[4:]]))
    with pytest.raises(AnybitError, match="damaged"):
        run_study(study(Counting()), journal)


def test_progress_counts_every_cell():
    seen = []
    run_study(study(Counting()), progress=lambda what, done, total: seen.append((done, total)))
    assert seen == [(i, 10) for i in range(11)]


def test_refusals():
    with pytest.raises(AnybitError, match="only once"):
        Study("toy", ["a", "a"], [0], Counting())
    with pytest.raises(AnybitError, match="at least one seed"):
        Study("toy", ["a"], [], Counting())
    with pytest.raises(AnybitError, match="nan"):
        run_study(Study("toy", ["a"], [0], lambda condition, seed: {"loss": float("nan")}))
    with pytest.raises(AnybitError, match="measured no"):
        run_study(study(Counting())).values("a", "speed")
