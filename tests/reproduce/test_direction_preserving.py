"""The experiment declares the published claims and measures what it says; the whole quick run is slow."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.formats.design import coverage
from anybit.reproduce import direction_preserving as dp
from anybit.reproduce.experiment import Context
from anybit.reproduce.result import judge


def test_a_random_alphabet_never_beats_the_bound(monkeypatch):
    assert dp._violations(30) == 0
    # The count can rise: a bound that is too high is noticed.
    monkeypatch.setattr(dp, "sign_count_bound", lambda levels, n: 89.0)
    assert dp._violations(30) == 30


def test_weights_prefer_the_best_scale_and_more_codes(tmp_path):
    found = dp._weights(Context(tmp_path, tmp_path))
    assert 0.001 < found["dp4_exact"] < found["optimised_exact"] < found["e2m1_exact"] < found["e2m1_absmax"] < 0.02
    assert found["dp4_exact"] < found["nf4_exact"]


def test_the_paper_s_alphabet_is_mirrored():
    assert len(dp.OPTIMISED) == 15 and np.array_equal(dp.OPTIMISED, -dp.OPTIMISED[::-1])
    assert coverage(dp.OPTIMISED, 16, 5000).mean == pytest.approx(4.285, abs=0.03)


@pytest.mark.slow
def test_the_quick_run_reproduces_the_claim(tmp_path):
    figures = dp.run(Context(tmp_path, tmp_path), quick=True)
    result = judge(dp.EXPERIMENT, figures, quick=True, seconds=1.0, threads=1)
    assert [check.description for check in result.checks if not check.passed] == []
