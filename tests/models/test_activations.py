"""The figures of heavy tails against SciPy and by hand; every place is named."""

import pytest
import scipy.stats
import torch

from anybit import models
from anybit.models.activations import activation_tails, tail


def test_tail_equals_scipy():
    x = torch.randn(7, 300, generator=torch.Generator().manual_seed(0)) ** 3
    assert tail(x).kurtosis == pytest.approx(scipy.stats.kurtosis(x.double().numpy(), axis=None, fisher=False))
    assert tail(torch.tensor([1.0, -8.0, 2.0])).max_to_median == 4.0


def test_every_linear_and_every_layers_keys_are_named(tiny_model):
    model = models.load(tiny_model("phi3")[1])
    found = activation_tails(model, [3, 5, 8, 100])
    linears = [op for op in model.plan.ops if op.kind == "linear"]
    assert len(found) == len(linears) + model.plan.layers
    assert "keys.2" in found and "lm_head.weight" in found
    assert any(name.startswith("model.layers.0.self_attn.qkv_proj.weight[") for name in found)
