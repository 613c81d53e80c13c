"""Residuals where shapes agree, widths and strides as in the papers (accuracies: test_networks)."""

import torch

from anybit.zoo.architectures.mobilenet import InvertedResidual, MobileNetCifar, MobileNetV1, MobileNetV2


def test_a_block_adds_its_input_where_the_shapes_agree():
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, 6, 1).eval()
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(block(x) - x, block.layers(x))
    assert not InvertedResidual(8, 8, 6, 2).adds and not InvertedResidual(8, 12, 6, 1).adds


def test_sizes():
    model = MobileNetCifar().eval()
    assert model.blocks(model.stem(torch.randn(1, 3, 32, 32))).shape == (1, 96, 4, 4)
    assert sum(p.numel() for p in MobileNetV2().parameters()) - 3_487_816 == 0
    assert sum(p.numel() for p in MobileNetV1(1.0).parameters()) == 4_231_976  # table 8 of the V1 paper: 4.2 million
    x = torch.randn(1, 3, 64, 64)
    assert MobileNetV1(0.25).eval()(x).shape == MobileNetV2().eval()(x).shape == (1, 1000)
