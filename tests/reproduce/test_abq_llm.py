"""The pieces of the experiment find what they should, and what is broken shows. The whole quick run is slow."""

from __future__ import annotations

import pytest

from anybit.ops import native
from anybit.reproduce import abq_llm
from anybit.reproduce.experiment import Context

pytestmark = pytest.mark.skipif(native.load() is None, reason="the native module is not built (make native)")


def test_products_are_exact_and_a_wrong_one_shows(monkeypatch):
    assert abq_llm._reference(1) == 0
    assert abq_llm._kernel() < 1e-6
    monkeypatch.setattr(abq_llm, "bitserial_matmul", lambda x, w: x.values() @ w.values().T + 1)
    assert abq_llm._reference(1) > 64


def test_grids_of_normal_numbers():
    """Best uniform quantizers of a Gaussian: 9.25 dB for four levels (Max, 1960), more for five and eight."""
    found = abq_llm._grids()
    assert found["bipolar"] == pytest.approx(9.25, abs=0.05)
    assert found["four"] < found["bipolar"] < found["five"] < found["eight"]
    assert found["five"] == pytest.approx(10.83, abs=0.1)


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = abq_llm.run(Context(shared_data, tmp_path), quick=True)
    outcomes = [check.apply(figures) for check in abq_llm.EXPERIMENT.checks]
    assert all(outcome.passed for outcome in outcomes[:4])
