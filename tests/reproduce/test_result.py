"""Stored results: complete, written whole, refused when damaged, never replaced by a quicker run."""

import json
import math
import socket

import pytest

from anybit.errors import AnybitError
from anybit.ops import native
from anybit.reproduce.experiment import Check, Experiment
from anybit.reproduce.result import FIELDS, Result, judge, load, store, write_whole

EXPERIMENT = Experiment(
    5,
    "miniature",
    "Two is more than one.",
    "arithmetic",
    (Check("two is more than one", "two", ">", "one"), Check("nan is nothing", "nan", ">", 0)),
    lambda context, quick: {},
    {"two": "two"},
)
FIGURES = {"one": 1, "two": 2.0, "nan": math.nan, "nested": {"list": [1.5, math.inf]}}


def result(quick=False, two=2.0) -> Result:
    return judge(EXPERIMENT, {**FIGURES, "two": two}, quick=quick, seconds=1.234, threads=1)


def test_judge():
    found = result()
    assert found.verdict == "partly"
    assert [check.passed for check in found.checks] == [True, False]
    assert found.figures["nested"] == {"list": [1.5, None]}
    assert found.key_figures == {"two": 2.0}
    module = native.load()
    assert found.machine["isa"] == ("none" if module is None else module.isa())
    assert found.machine["cores"] >= 1
    assert "numpy" in found.versions


def test_round_trip(tmp_path):
    store(tmp_path, result())
    text = (tmp_path / "miniature.json").read_text()
    assert set(json.loads(text)) == set(FIELDS)
    assert socket.gethostname() not in text
    back = load(tmp_path, "miniature")
    assert back is not None and back.to_json() == text
    assert load(tmp_path, "another") is None


def test_a_quick_run_does_not_replace_a_full_one(tmp_path):
    assert store(tmp_path, result(quick=True)) is not None
    assert store(tmp_path, result(quick=False)) is not None
    before = (tmp_path / "miniature.json").read_bytes()
    assert store(tmp_path, result(quick=True, two=3.0)) is None
    assert (tmp_path / "miniature.json").read_bytes() == before
    assert store(tmp_path, result(quick=False, two=3.0)) is not None
    assert load(tmp_path, "miniature").figures["two"] == 3.0
    assert [path.name for path in tmp_path.iterdir()] == ["miniature.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.pop("checks"), "checks"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.update(verdict="reproduced"), "run it again"),
        (lambda d: d["checks"][1].update(passed=True), "run it again"),
        (lambda d: d["checks"][0].pop("measured"), "another form"),
    ],
)
def test_damage_is_refused(tmp_path, change, words):
    data = json.loads(result().to_json())
    change(data)
    (tmp_path / "miniature.json").write_text(json.dumps(data))
    with pytest.raises(AnybitError, match=words):
        load(tmp_path, "miniature")


def test_torn_file_is_refused(tmp_path):
    (tmp_path / "miniature.json").write_text(result().to_json()[:100])
    with pytest.raises(AnybitError, match="is not JSON"):
        load(tmp_path, "miniature")


def test_a_failed_write_leaves_the_old_text(tmp_path):
    path = tmp_path / "page"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
