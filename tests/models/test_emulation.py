"""Emulated products of a whole model: where they are taken, that their bias is seen, and that gains remove it."""

from __future__ import annotations

import pytest
import torch

from anybit import models
from anybit.errors import AnybitError
from anybit.models import TorchExecutor
from anybit.models.emulation import Emulation, calibrated
from anybit.ops import Product

LMUL = Product("lmul_add", "e8m4")


@pytest.fixture(scope="module")
def model():
    return models.load("anybit-tiny")


def windows(seed, tokens=40):
    return [torch.randint(0, 4096, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()]


def logits(model, emulation=None):
    return TorchExecutor(model.plan, model.weights, multiply=emulation).forward(windows(1)[0], "all")


def test_exact_products_change_nothing_beyond_rounding(model):
    exact = logits(model)
    assert torch.allclose(logits(model, Emulation(Product())), exact, rtol=0, atol=1e-4 * float(exact.abs().max()))


@pytest.mark.parametrize("where, covered", [("attention", (1, 0)), ("linear", (0, 1)), ("all", (1, 1))])
def test_where(where, covered):
    x, w = torch.tensor([[1.75]]), torch.tensor([[1.25]])  # exactly 2.1875; the adder 2 * (0.75 + 0.25 + 0.125)
    emulation = Emulation(LMUL, where)
    for site, emulated in zip(("scores.0", "model.layers.0.mlp.up_proj.weight"), covered, strict=True):
        assert emulation(site, x, w).item() == (2.25 if emulated else 2.1875)


def test_gains_lie_where_the_bias_says_and_bring_logits_nearer(model):
    plain = Emulation(LMUL)
    corrected = calibrated(plain, model.plan, model.weights, windows(2))
    assert len(corrected.gains) == 43 + 12
    # The relative bias of l_mul with 4 bits is +4.9 % on normal operands.
    assert all(0.94 < gain < 0.965 for gain in corrected.gains.values())
    exact = logits(model)
    error = {
        name: (logits(model, e) - exact).square().mean().item() for name, e in (("plain", plain), ("gain", corrected))
    }
    assert error["gain"] < 0.5 * error["plain"]


def test_refusals(model):
    with pytest.raises(AnybitError, match="attention, linear; got 'norms'"):
        Emulation(LMUL, "norms")
    with pytest.raises(AnybitError, match="there are none"):
        calibrated(Emulation(LMUL), model.plan, model.weights, [])
