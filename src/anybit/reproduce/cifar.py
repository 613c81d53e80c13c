"""CIFAR-10 and its residual networks, which live in the zoo, under the names the experiments use."""

from anybit.zoo.architectures.resnet import Block, ResNet, resnet
from anybit.zoo.images import DEVIATION, MEAN, images

__all__ = ["DEVIATION", "MEAN", "Block", "ResNet", "images", "resnet"]
