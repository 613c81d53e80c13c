"""The pieces of the experiment, and that breaking them shows; the whole quick run is slow."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.reproduce import marlin
from anybit.reproduce.experiment import Context


def test_the_tricks_of_unpacking_are_exact_and_breaking_one_shows(monkeypatch):
    assert marlin._unpacked() == 0
    real = marlin._halves
    monkeypatch.setattr(marlin, "_halves", lambda words: real(words ^ np.uint32(1)))
    assert marlin._unpacked() > 500


def test_errors_of_products():
    found = marlin._errors(quick=True)
    assert 0 < found["exact"] < 1e-5 < 3e-3 < found["int8"] < 2e-2


def test_stripes_are_even_where_columns_are_not():
    found = marlin._stripes()
    assert found["lost"] == 0 and found["handed_on"] == 1
    assert 1 <= found["stripes"] < 1.1 < 5 < found["columns"]


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = marlin.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures) for check in marlin.EXPERIMENT.checks}
    assert all(o.passed for name, o in outcomes.items() if "words" in name or "stripes" in name or "values" in name)
    assert figures["tiny"]["kl"]["gptq_clip"] < figures["tiny"]["kl"]["rtn"]
