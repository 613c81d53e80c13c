"""The published accuracy is only met when decoding, layout and weights are all right."""

import pytest
import torch

from anybit.errors import CheckpointError
from anybit.zoo.architectures.resnet import ResNet, resnet
from anybit.zoo.images import images


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
