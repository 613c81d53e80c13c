"""Checks compare figures with bounds; the verdict is a function of the checks alone."""

import math

import pytest

from anybit.errors import AnybitError
from anybit.reproduce.experiment import Check, Context, Experiment, Outcome, figure, verdict

FIGURES = {"accuracy": {"ours": 82.5, "theirs": 73.0}, "seeds": 5, "text": "x", "odd": math.nan}


@pytest.mark.parametrize(
    ("check", "bound", "passed"),
    [
        (Check("", "accuracy.ours", ">=", 82.5), 82.5, True),
        (Check("", "accuracy.ours", ">", 82.5), 82.5, False),
        (Check("", "accuracy.ours", "<=", 82.5), 82.5, True),
        (Check("", "accuracy.ours", "<", 82.5), 82.5, False),
        (Check("", "seeds", "==", 5), 5, True),
        (Check("", "accuracy.ours", ">=", "accuracy.theirs", margin=9.5), 82.5, True),
        (Check("", "accuracy.ours", ">=", "accuracy.theirs", margin=9.6), 82.6, False),
        (Check("", "odd", ">=", 0), 0, False),
        (Check("", "odd", "<=", 0), 0, False),
    ],
)
def test_check(check, bound, passed):
    outcome = check.apply(FIGURES)
    assert outcome.bound == pytest.approx(bound)
    assert outcome.passed is passed


@pytest.mark.parametrize("path", ["nothing", "accuracy.nothing", "seeds.more", "accuracy", "text"])
def test_a_path_that_leads_to_no_number(path):
    with pytest.raises(AnybitError, match=path):
        figure(FIGURES, path)


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ([1, 1], "reproduced"),
        ([1, 0], "partly"),
        ([0, 1, 1], "partly"),
        ([0, 0], "not reproduced"),
        ([], "not reproduced"),
    ],
)
def test_verdict(passed, expected):
    assert verdict([Outcome("", 0.0, ">=", 0.0, bool(p)) for p in passed]) == expected


def test_an_experiment_must_declare_checks():
    with pytest.raises(AnybitError, match="declares no check"):
        Experiment(1, "x", "claim", "source", (), lambda context, quick: {})


def test_a_check_needs_a_known_relation():
    with pytest.raises(AnybitError, match="relation"):
        Check("", "seeds", "~", 1)  # type: ignore[arg-type]


def test_missing_data_says_how_to_point_at_it(tmp_path):
    with pytest.raises(AnybitError, match=r"needs a/b\.npz.*ANYBIT_DATA"):
        Context(tmp_path, tmp_path).file("a/b.npz")
