"""Smoothing keeps the function and evens out the channels."""

import pytest
import torch

from anybit.transforms.smooth import smoothing_scales


def layers():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 32, generator=g, dtype=torch.float64)
    gain = torch.rand(32, generator=g, dtype=torch.float64) + 0.5
    gain[5] = 60.0
    return x, gain, [torch.randn(n, 32, generator=g, dtype=torch.float64) for n in (7, 24)]


def test_alpha_half_equalises_both_sides():
    x, gain, weights = layers()
    act = (x * gain).abs().amax(0)
    s = smoothing_scales(act, weights, alpha=0.5)
    weight_max = torch.stack([w.abs().amax(0) for w in weights]).amax(0)
    torch.testing.assert_close(act / s.double(), weight_max * s.double(), rtol=1e-5, atol=0)


def test_dead_channels_keep_scale_one():
    s = smoothing_scales(torch.tensor([0.0, 2.0]), [torch.tensor([[1.0, 0.0]])])
    assert s.tolist() == [1.0, 1.0]


def test_refuses_alpha_and_shapes():
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]; got 1.5"):
        smoothing_scales(torch.ones(2), [torch.ones(3, 2)], alpha=1.5)
    with pytest.raises(ValueError, match="3 input channels, the activations 2"):
        smoothing_scales(torch.ones(2), [torch.ones(3, 3)])
