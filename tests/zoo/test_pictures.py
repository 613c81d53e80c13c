"""Similarity against its formula window by window; sampling and judging of known images."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from anybit.errors import AnybitError
from anybit.zoo import pictures
from anybit.zoo.architectures.unet import levels
from anybit.zoo.images import images
from anybit.zoo.pictures import agreement, likeness, made, shown, sqnr, ssim


def test_ssim_is_its_formula():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 3, 9, 10))
    y = 0.8 * x + 0.2 * rng.uniform(-1, 1, x.shape)
    a, b = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    found = []
    for image in range(2):
        for channel in range(3):
            for row in range(3):
                for column in range(4):
                    u, v = (z[image, channel, row : row + 7, column : column + 7].ravel() for z in (x, y))
                    both = np.cov(u, v)
                    top = (2 * u.mean() * v.mean() + a) * (2 * both[0, 1] + b)
                    found.append(top / ((u.mean() ** 2 + v.mean() ** 2 + a) * (both[0, 0] + both[1, 1] + b)))
    assert ssim(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(np.mean(found), abs=1e-12)
    assert ssim(torch.from_numpy(x), torch.from_numpy(x)) == pytest.approx(1, abs=1e-9)
    with pytest.raises(AnybitError, match=r"window of 11 pixels is larger than images of \[9, 10\]"):
        ssim(torch.from_numpy(x), torch.from_numpy(y), window=11)


def test_sqnr():
    x = torch.ones(4)
    assert sqnr(x, x + 0.1) == pytest.approx(20, abs=1e-4)
    assert math.isinf(sqnr(x, x))


def test_real_images_are_taken_for_what_they_are(shared_data):
    x, y = images(shared_data / "cifar10/test_first1000.npz")
    x, y = x[:50], y[:50]
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (pictures.MEAN, pictures.DEVIATION))
    assert shown(2 * (x * deviation + mean) - 1, y) >= 85


class Grey(nn.Module):
    """Sees the same grey image in everything, brighter by `more`."""

    def __init__(self, more=0.0):
        super().__init__()
        self.more = more

    def forward(self, x, t, caption):
        signal, sigma = levels(t)
        image = 0.1 * caption[:, 5].view(-1, 1, 1, 1) - 1 + self.more  # the class of the caption decides how grey
        return (signal * x - image) / sigma


def test_what_is_made(shared_data, monkeypatch):
    monkeypatch.setattr(pictures, "COUNT", 20)
    monkeypatch.setattr(pictures, "PART", 10)
    told = []
    x, labels = made(Grey(), lambda *a: told.append(a))
    assert labels.tolist() == [*range(10)] * 2 and told[-1] == ("20 of 20 images", 20, 20)
    wanted = 0.1 * (labels + 6) - 1  # six words come before the classes
    torch.testing.assert_close(x, wanted.view(-1, 1, 1, 1).expand(x.shape), atol=1e-5, rtol=0)
    assert agreement(Grey(), lambda *a: None) == 10  # a grey square is always of one class
    found = likeness(Grey(0.1), Grey(), lambda *a: None)
    signal = (wanted**2).mean().item()
    assert found["SQNR, 4 steps (dB)"] == pytest.approx(10 * math.log10(signal / 0.01), abs=1e-2)
    assert set(found) == {"SQNR, 4 steps (dB)", "SSIM, 4 steps", "SQNR, 1 step (dB)", "SSIM, 1 step"}
