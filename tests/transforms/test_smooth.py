"""Smoothing keeps the function and evens out the channels."""

import pytest
import torch

from anybit.transforms.smooth import fold, smoothing_scales


def layers():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 32, generator=g, dtype=torch.float64)
    gain = torch.rand(32, generator=g, dtype=torch.float64) + 0.5
    gain[5] = 60.0
    return x, gain, [torch.randn(n, 32, generator=g, dtype=torch.float64) for n in (7, 24)]


def test_function_is_preserved_through_a_norm_gain():
    x, gain, weights = layers()
    s = smoothing_scales((x * gain).abs().amax(0), weights)
    folded, smoothed = fold(gain, weights, s)
    for w, v in zip(weights, smoothed, strict=True):
        torch.testing.assert_close((x * folded) @ v.T, (x * gain) @ w.T, atol=1e-9, rtol=1e-6)


def test_function_is_preserved_through_a_linear_producer():
    x, _, weights = layers()
    up = torch.randn(32, 32, dtype=torch.float64)
    s = smoothing_scales((x @ up.T).abs().amax(0), weights, alpha=0.8)
    folded, smoothed = fold(up, weights, s)
    torch.testing.assert_close(x @ folded.T @ smoothed[0].T, x @ up.T @ weights[0].T, atol=1e-6, rtol=1e-5)


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
