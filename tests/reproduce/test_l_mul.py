"""The pieces of the experiment against numbers known otherwise; the whole quick run is slow."""

from __future__ import annotations

import pytest
import torch

from anybit.reproduce import l_mul
from anybit.reproduce.experiment import Context


def test_errors_of_products():
    found = l_mul._products(4, 200_000)
    # An operand rounded to m bits errs by 2^-m-1 / sqrt(3) at most in the root mean square; two of them and the third rounding add up.
    assert 0.015 < found["exact"]["rms"] < 0.025 < found["corrected"]["rms"] < 0.04 < found["lmul_add"]["rms"] < 0.07
    # What is added, 2^-3, is more than the mean of the missing product of mantissas.
    assert 0.04 < found["lmul_add"]["bias"] < 0.055 and abs(found["corrected"]["bias"]) < 0.002
    assert abs(found["lmul_formula"]["bias"]) < 0.01


def test_zeros_have_no_relative_error(monkeypatch):
    monkeypatch.setattr(
        l_mul, "_normal", lambda count, seed: (torch.tensor([0.0, 1.25, 3.0]), torch.tensor([1.0, 1.5, 0.0]))
    )
    assert l_mul._products(7, 3)["exact"] == {"bias": 0.0, "rms": 0.0}


def test_mismatches_are_counted(monkeypatch):
    assert l_mul._mismatches(3, 5000) == l_mul._mismatches(7, 5000) == 0
    real = l_mul.multiply
    monkeypatch.setattr(l_mul, "multiply", lambda a, b, p: torch.nextafter(real(a, b, p), torch.tensor(9e9)))
    assert l_mul._mismatches(3, 5000) == 10_000


def test_dot_products_keep_the_bias():
    found = l_mul._dot(4)
    assert found["exact"] < found["corrected"] < 0.04 < 0.055 < found["plain"] < 0.07


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = l_mul.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures) for check in l_mul.EXPERIMENT.checks}
    assert all(outcome.passed for name, outcome in outcomes.items() if "0.6 times" in name or "float64" in name)
    assert figures["tiny"]["attention4"]["plain"] < 0.01
