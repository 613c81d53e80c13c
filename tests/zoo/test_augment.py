"""Batches depend on seed and step alone, every image comes once a pass, and shifting and mirroring are what they say."""

import numpy as np
import torch
from torch import nn

from anybit.zoo import augment
from anybit.zoo.images import normalise
from anybit.zoo.training import Options


def test_batches_repeat_and_every_image_comes_once_a_pass(small_cifar):
    data = augment.Cifar(small_cifar.images, torch.arange(60), small_cifar.test_images, small_cifar.test_labels)
    a, b = (augment.batch(data, 5, 8, seed=1) for _ in range(2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    labels = torch.cat([augment.batch(data, step, 8, seed=1)[1] for step in range(15)])  # two passes of 60
    assert sorted(labels[:60].tolist()) == list(range(60)) == sorted(labels[60:].tolist())
    assert labels[:60].tolist() != labels[60:].tolist()
    assert not torch.equal(augment.batch(data, 5, 8, seed=2)[1], a[1])


def test_an_image_is_shifted_and_mirrored_as_a_whole(small_cifar):
    """Each augmented image is found among all 81 shifts of the image and of its mirror image, made by plain slicing."""
    x, labels = augment.batch(small_cifar, 0, 20, seed=0)
    order = np.random.default_rng((0, 0)).permutation(60)[:20]
    mirrored = 0
    for number, image in enumerate(x):
        original = normalise(small_cifar.images[order[number]][None])[0]
        assert labels[number] == small_cifar.labels[order[number]]
        wide = np.pad(original.numpy(), ((0, 0), (4, 4), (4, 4)))
        windows = [wide[:, r : r + 32, c : c + 32] for r in range(9) for c in range(9)]
        plain = any(np.array_equal(image, w) for w in windows)
        mirror = any(np.array_equal(image, w[:, :, ::-1]) for w in windows)
        assert plain or mirror
        mirrored += mirror
    assert 3 < mirrored < 17


def test_loss_and_accuracy(small_cifar):
    class Zero(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10)

    loss = augment.classification_loss(Zero(), 0, data=small_cifar, options=Options(1, 1, 1, 6))
    torch.testing.assert_close(loss, torch.tensor(10.0).log())
    assert augment.accuracy(Zero(), data=small_cifar) == {"accuracy": 10.0}  # all classified as 0, one in ten is
