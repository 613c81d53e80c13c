"""The experiments' names are the zoo's."""

from anybit.reproduce import cifar
from anybit.zoo import images
from anybit.zoo.architectures import resnet


def test_names():
    assert cifar.images is images.images and cifar.resnet is resnet.resnet and cifar.ResNet is resnet.ResNet
