"""The checks of the experiment can fail: each piece is given something broken. The whole quick run is slow."""

from __future__ import annotations

import pytest

from anybit.reproduce import tilus
from anybit.reproduce.experiment import Context
from anybit.tensors.layout import Layout
from anybit.tensors.tiled_packing import Packing, plane


def test_the_laws_hold_on_random_layouts_and_breaking_one_shows(monkeypatch):
    found = tilus._algebra(40)
    assert found["all"] == 0 and found["layouts"] == 40
    monkeypatch.setattr(Layout, "__truediv__", lambda f, g: f)
    broken = tilus._algebra(40)
    assert broken["division"] > 20 and broken["all"] == broken["division"]


def test_packings_of_real_weights():
    found = tilus._packings()
    assert found.pop("codes") > 50_000 and found.pop("refused") == 4
    assert set(found.values()) == {0}


def test_another_order_strays_and_is_no_marlin(monkeypatch):
    fields = "(n:16) (k:16) -> n | k"
    wrong = Packing("rows", (plane(4, fields, memory=Layout.parse("spatial(16).local(8)")),))
    assert tilus._straying(tilus.tilus(4), 4) == 0
    assert tilus._straying(wrong, 4) > 500
    monkeypatch.setattr(tilus, "marlin", lambda: tilus.tilus(4))
    assert tilus._packings()["marlin"] > 10_000


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = tilus.run(Context(shared_data, tmp_path), quick=True)
    outcomes = [check.apply(figures) for check in tilus.EXPERIMENT.checks]
    assert all(outcome.passed for outcome in outcomes[:6])
    assert 0 < figures["speed"]["least_share"] < 1.2
