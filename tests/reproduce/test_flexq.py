"""The pieces of the experiment, and that breaking them shows; the whole quick run is slow."""

from __future__ import annotations

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.reproduce import flexq
from anybit.reproduce.experiment import Context
from anybit.tensors import quantize


def test_bit_planes_and_the_order_are_exact_and_breaking_one_shows(monkeypatch):
    found = flexq._exact()
    assert found["wrong"] == 0 and 0 < found["error"] < 1e-6
    real = flexq.grouped_product
    monkeypatch.setattr(flexq, "grouped_product", lambda a, b: real(a, b) + 1)
    assert flexq._exact()["wrong"] > 1000


def test_inputs_are_rounded_by_the_type_of_layer():
    x, w = torch.randn(3, 256), torch.randn(5, 256)
    product = flexq._Rounded({"down_proj": 6})
    rounded = quantize(x, TensorFormat.parse("int6n/g128")).dequantize()
    assert torch.equal(product("model.layers.0.mlp.down_proj.weight", x, w), rounded @ w.T)
    for site in ("model.layers.0.mlp.up_proj.weight", "scores.0", "lm_head.weight"):
        assert torch.equal(product(site, x, w), x @ w.T)


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = flexq.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures) for check in flexq.EXPERIMENT.checks}
    assert sum(o.passed for o in outcomes.values()) >= 7
    assert figures["outliers"]["w6a68"] < figures["outliers"]["w6a6"] < figures["outliers"]["w6a6_row"]
