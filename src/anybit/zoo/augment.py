"""CIFAR-10 for training: batches that are a function of seed and step, shifted and mirrored; the loss and the score of classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo.data import data_file
from anybit.zoo.images import normalise, pixels
from anybit.zoo.training import Options

SHIFT = 4
"""Pixels an image is shifted at most, in each direction; what comes in is black."""


@dataclass(frozen=True)
class Cifar:
    """Training images [n, 3, 32, 32] bytes and labels [n]; held-out images normalised, and their labels."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls, device: str = "cpu") -> Cifar:
        """All 50,000 training images and the first 1,000 test images of the shared data."""
        parts = [pixels(data_file(f"cifar10/train_{i}.npz")) for i in range(5)]
        test, test_labels = pixels(data_file("cifar10/test_first1000.npz"))
        return cls(
            torch.from_numpy(np.concatenate([x for x, _ in parts])).to(device),
            torch.from_numpy(np.concatenate([y for _, y in parts])).to(device),
            normalise(torch.from_numpy(test)).to(device),
            torch.from_numpy(test_labels).to(device),
        )


def batch(data: Cifar, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Normalised images [size, 3, 32, 32] and labels of one step: a pass over all images in an order of its own, then the next."""
    count = len(data.images)
    picked = np.empty(size, dtype=np.int64)
    for i, place in enumerate(range(step * size, (step + 1) * size)):
        if i == 0 or place % count == 0:
            order = np.random.default_rng((seed, place // count)).permutation(count)
        picked[i] = order[place % count]
    rng = np.random.default_rng((seed, step, 1))
    at = torch.from_numpy(picked).to(data.images.device)
    x = normalise(data.images[at])
    x = F.pad(x, (SHIFT,) * 4)
    shifts = torch.from_numpy(rng.integers(0, 2 * SHIFT + 1, (2, size))).to(x.device)
    along = torch.arange(32, device=x.device)
    rows, columns = shifts[0][:, None] + along, shifts[1][:, None] + along
    mirrored = torch.from_numpy(rng.random(size) < 0.5).to(x.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    number = torch.arange(size, device=x.device)[:, None, None, None]
    channel = torch.arange(3, device=x.device)[None, :, None, None]
    return x[number, channel, rows[:, None, :, None], columns[:, None, None, :]], data.labels[at]


def classification_loss(
    model: nn.Module, step: int, *, data: Cifar, options: Options, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy of a step's batch, with softened labels."""
    x, y = batch(data, step, options.batch, options.seed)
    return F.cross_entropy(model(x).float(), y, label_smoothing=smoothing)


def accuracy(model: nn.Module, *, data: Cifar) -> dict[str, float]:
    """Percent of the held-out images that are classified rightly."""
    parts = zip(data.test_images.split(100), data.test_labels.split(100), strict=True)
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
    return {"accuracy": 100 * right / len(data.test_labels)}
