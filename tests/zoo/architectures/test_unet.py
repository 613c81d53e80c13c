"""Captions, the schedule, a first token that no caption changes, and sampling that undoes known noise."""

import pytest
import torch
from torch import nn

from anybit.errors import AnybitError
from anybit.zoo.architectures.unet import WORDS, TextEncoder, TextUNet, captions, denoising_loss, levels, sample


def test_captions():
    ids = captions(torch.tensor([0, 3]))
    assert [[WORDS[i] for i in row] for row in ids.tolist()] == [
        ["<begin>", "a", "photo", "of", "an", "airplane", "<end>"],
        ["<begin>", "a", "photo", "of", "a", "cat", "<end>"],
    ]


def test_the_first_token_is_the_same_under_every_caption():
    torch.manual_seed(0)
    text = TextEncoder(16).eval()(captions(torch.arange(10)))
    assert torch.equal(text[0, 0], text[7, 0]) and not torch.allclose(text[0, 6], text[7, 6])


def test_levels_keep_the_variance():
    signal, sigma = levels(torch.linspace(0, 1, 11))
    torch.testing.assert_close(signal.square() + sigma.square(), torch.ones(11, 1, 1, 1))
    assert signal[0] == 1 and 0 < signal[-1] < 0.01


def test_shape_and_conditioning():
    torch.manual_seed(0)
    model = TextUNet().eval()
    assert sum(p.numel() for p in model.parameters()) < 5_000_000
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([0.4])
    with torch.no_grad():
        plain = model(x, t, captions(torch.tensor([1])))
        assert plain.shape == x.shape
        assert not torch.allclose(plain, model(x, t, captions(torch.tensor([2]))), atol=1e-5)
        assert not torch.allclose(plain, model(x, t + 0.3, captions(torch.tensor([1]))), atol=1e-4)


class Knows(nn.Module):
    """Gives exactly the noise between a constant image and what it sees."""

    def forward(self, x, t, caption):
        signal, sigma = levels(t)
        return (x - signal * 0.25) / sigma


def test_sampling_with_perfect_noise_gives_the_image():
    torch.testing.assert_close(
        sample(Knows(), torch.tensor([1, 2]), steps=5), torch.full((2, 3, 32, 32), 0.25), atol=1e-3, rtol=0
    )
    with pytest.raises(AnybitError, match="at least one step; got 0"):
        sample(Knows(), torch.tensor([1]), steps=0)


def test_the_loss_of_perfect_noise_is_zero():
    x = torch.full((3, 3, 32, 32), 0.25)
    loss = denoising_loss(Knows(), x, torch.tensor([1, 2, 3]), torch.tensor([0.2, 0.5, 0.9]), torch.randn(x.shape))
    assert loss < 1e-9
