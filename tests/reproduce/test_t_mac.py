"""The pieces of the experiment find what they should, and what is broken shows. The whole quick run is slow."""

from __future__ import annotations

import math

import pytest

from anybit.ops import native
from anybit.reproduce import t_mac
from anybit.reproduce.experiment import Context

pytestmark = pytest.mark.skipif(native.load() is None, reason="the native module is not built (make native)")


def test_errors_of_tables_on_a_real_weight():
    found = t_mac._errors()
    assert found["exact"] < 1e-10 and 1e-6 < found["int8"] < 1e-4 < found["average"]
    assert found["activations"] < 1e-4


def test_ternary_products_are_exact_and_another_product_is_not(monkeypatch):
    assert t_mac._ternary() == {"reference": 0, "kernel": 0}
    monkeypatch.setattr(t_mac, "lookup_linear", lambda x, w, *_: x @ w.dequantize().T + 1)
    assert t_mac._ternary()["reference"] == 9 * 50


def test_the_model_through_lookups(tmp_path):
    found = t_mac._model(Context(tmp_path, tmp_path), 300)
    assert abs(found["change"]) < 0.02 and found["faster"] > 0


def test_a_small_shape(monkeypatch, tmp_path):
    monkeypatch.setattr(t_mac, "EVICT", 0)
    found = t_mac._shape(Context(tmp_path, tmp_path), 64, 256, 1)
    assert {"over_exact1", "over_torch", "over_integers1", "w4_over_w1"} <= set(found)
    assert all(math.isfinite(value) and value > 0 for value in found["us"].values()) and len(found["us"]) == 12


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = t_mac.run(Context(shared_data, tmp_path), quick=True)
    outcomes = [check.apply(figures) for check in t_mac.EXPERIMENT.checks]
    assert all(outcome.passed for outcome in outcomes[:4])
