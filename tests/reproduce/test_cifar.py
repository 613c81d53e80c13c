"""The stored images and networks: published accuracies are only met when decoding, layout and weights are all right."""

import numpy as np
import pytest
import torch

from anybit.errors import CheckpointError
from anybit.reproduce.cifar import DEVIATION, MEAN, ResNet, images, resnet


def test_images_undo_the_differences(tmp_path):
    rng = np.random.default_rng(0)
    red, green, blue = rgb = rng.integers(0, 256, (3, 5, 32, 32), dtype=np.uint8)
    planes = np.stack([red - green, green, blue - green])
    for axis in (-1, -2):
        planes = np.diff(planes, axis=axis, prepend=np.zeros_like(planes.take([0], axis)))
    np.savez(tmp_path / "batch.npz", d=planes, y=np.arange(5, dtype=np.uint8))
    x, y = images(tmp_path / "batch.npz")
    expected = (rgb.transpose(1, 0, 2, 3) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(DEVIATION, (3, 1, 1))
    assert x.dtype == torch.float32 and y.tolist() == list(range(5))
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_resnet20_has_its_published_accuracy(shared_data):
    model = resnet(shared_data / "resnet_cifar/resnet20.safetensors", 20)
    x, y = images(shared_data / "cifar10/test_first1000.npz")
    with torch.no_grad():
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(100), y.split(100), strict=True))
    assert right == 915
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_stages_in_order():
    assert list(ResNet(20).stages())[:3] == ["conv1", "layer1.0", "layer1.1"]
    assert len(ResNet(32).stages()) == 17


def test_another_depth_is_refused(shared_data):
    with pytest.raises(CheckpointError, match="depth 32"):
        resnet(shared_data / "resnet_cifar/resnet20.safetensors", 32)
