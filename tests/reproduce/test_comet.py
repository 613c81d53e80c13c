"""The pieces of the experiment find what they should, and what is broken shows. The whole quick run is slow."""

from __future__ import annotations

import pytest
import torch

from anybit.ops import native
from anybit.reproduce import comet
from anybit.reproduce.experiment import Context

pytestmark = pytest.mark.skipif(native.load() is None, reason="the native module is not built (make native)")


def test_the_mixed_product_is_exact_and_a_wrong_one_shows(monkeypatch):
    assert comet._exact() == {"wrong": 0, "moved": 0}
    monkeypatch.setattr(comet, "two_width_matmul", lambda x, w, act, wide: torch.zeros(x.shape[0], w.n))
    assert comet._exact()["wrong"] > 100


def test_gathered_outliers_leave_the_other_channels_alone():
    found = comet._synthetic()
    assert found["share"] == 2 / 32 or found["share"] == 1 / 32
    assert 0.5 < found["share_before"] < 0.9 and found["mixed"] > found["a4"] + 12


def test_order_of_channels():
    largest = torch.tensor([1.0, 50.0, 1.0, 2.0, 100.0, 1.0, 1.0, 1.0])
    order, wide = comet.outliers_first(largest, 4)
    assert order.tolist() == [4, 1, 3, 0, 2, 5, 6, 7] and wide == 1
    assert comet.outliers_first(torch.ones(8), 4)[1] == 0


def test_makespans_of_the_example():
    found = comet._schedule(20)
    assert found["dealt"] == 10 and found["longest_first"] == 7 and found["cut"] == pytest.approx(6.75)
    assert 0.9 < found["worst"] <= 1


def test_a_channel_of_the_cache_has_its_own_scale():
    keys = torch.stack([torch.linspace(-1, 1, 32), torch.linspace(100, 300, 32)], 1)
    error = (comet._rounded_cache("scores.0", keys) - keys).abs().amax(0)
    assert error[0] < 0.1 and error[1] < 10
    assert torch.equal(comet._rounded_cache("mixing.0", keys.T), comet._rounded_cache("scores.0", keys).T)


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = comet.run(Context(shared_data, tmp_path), quick=True)
    outcomes = [check.apply(figures) for check in comet.EXPERIMENT.checks]
    assert sum(outcome.passed for outcome in outcomes) >= 12
