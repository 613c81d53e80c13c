"""Shapes through the stages (accuracies: test_networks)."""

import torch

from anybit.zoo.architectures.mlperf import DSCNN, ResNet8, Stage


def test_a_stage_halves_where_it_widens():
    x = torch.randn(2, 8, 15, 15)
    assert Stage(8, 8)(x).shape == (2, 8, 15, 15) and Stage(8, 12)(x).shape == (2, 12, 8, 8)


def test_logits():
    assert ResNet8((4, 8, 12))(torch.rand(3, 3, 32, 32) * 255).shape == (3, 10)
    assert DSCNN()(torch.randn(2, 1, 49, 10)).shape == (2, 12)
