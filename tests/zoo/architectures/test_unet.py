"""Captions, the schedule, a first token that no caption changes, and sampling that undoes known noise."""

import pytest
import torch
from torch import nn

from anybit.errors import AnybitError
from anybit.zoo.architectures.unet import WORDS, TextEncoder, TextUNet, captions, levels, predicted, sample


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


def test_the_first_token_is_an_outlier_in_a_few_channels():
    torch.manual_seed(0)
    text = TextEncoder(64).eval()(captions(torch.arange(10)))
    large = text.abs() > 20
    assert large[:, 0].sum(-1).tolist() == [3] * 10 and not large[:, 1:].any()


def test_levels_keep_the_variance():
    signal, sigma = levels(torch.linspace(0, 1, 11))
    torch.testing.assert_close(signal.square() + sigma.square(), torch.ones(11, 1, 1, 1))
    assert signal[0] == 1 and abs(signal[-1]) < 1e-6


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
    """Gives exactly the velocity towards a constant image, whatever noise it sees."""

    def forward(self, x, t, caption):
        signal, sigma = levels(t)
        noise = (x - signal * 0.25) / sigma
        return signal * noise - sigma * 0.25


def test_the_image_is_seen_through_the_noise():
    x, t = torch.randn(3, 3, 32, 32), torch.tensor([0.2, 0.5, 1.0])
    signal, sigma = levels(t)
    seen = predicted(Knows(), signal * 0.25 + sigma * x, t, captions(torch.tensor([1, 2, 3])))
    torch.testing.assert_close(seen, torch.full_like(x, 0.25), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_sampling_with_perfect_velocities_gives_the_image(steps):
    torch.testing.assert_close(
        sample(Knows(), torch.tensor([1, 2]), steps), torch.full((2, 3, 32, 32), 0.25), atol=1e-4, rtol=0
    )
    with pytest.raises(AnybitError, match="at least one step; got 0"):
        sample(Knows(), torch.tensor([1]), steps=0)


def test_noise_depends_on_the_seed():
    torch.manual_seed(0)
    model, labels = TextUNet((8, 16, 16), 64, 16).eval(), torch.tensor([4])
    a, b, c = (sample(model, labels, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c) and a.abs().max() <= 1
