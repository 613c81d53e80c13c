"""The pieces of the experiment against figures known otherwise, and broken on purpose; the whole quick run is slow."""

from __future__ import annotations

import numpy as np
import pytest

from anybit import formats
from anybit.reproduce import apmm
from anybit.reproduce.experiment import Context


def test_products_formula_and_conversion_are_exact_and_breaking_one_shows(monkeypatch):
    found = apmm._exact(1)
    assert found["all"] == 0 and found["pairs"] == 64
    real = apmm.bitserial_matmul
    monkeypatch.setattr(apmm, "bitserial_matmul", lambda x, w: real(x, w) + 1)
    broken = apmm._exact(1)
    assert broken["products"] > 1000 and broken["formula"] == broken["conversion"] == 0


def test_signal_to_noise_by_sampling():
    found = apmm._signal_to_noise()
    x = np.random.default_rng(0).standard_normal(200_000)
    for bits in (2, 3):
        for kind, name in (("twos", f"int{bits}"), ("bipolar", f"bipolar{bits}")):
            levels = np.sort(formats.get(name).values)
            errors = []
            for scale in np.linspace(0.2, 1.4, 61):
                grid = levels * scale
                edges = (grid[1:] + grid[:-1]) / 2
                errors.append(np.mean((x - grid[np.searchsorted(edges, x)]) ** 2))
            assert found[f"b{bits}"][kind] == pytest.approx(-10 * np.log10(min(errors)), abs=0.06)
    assert found["b2"]["bipolar"] == pytest.approx(9.25, abs=0.01), (
        "the best uniform quantizer of four levels (Max 1960)"
    )


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = apmm.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures) for check in apmm.EXPERIMENT.checks}
    assert sum(outcome.passed for outcome in outcomes.values()) >= 7
    assert figures["tiny"]["original"] < figures["tiny"]["bipolar3"] < figures["tiny"]["bipolar2"]
