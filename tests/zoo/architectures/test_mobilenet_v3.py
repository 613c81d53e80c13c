"""The trunk has the parameters of the paper's network; gates lie in 0..1; residuals where shapes agree."""

import pytest
import torch

from anybit.zoo.architectures.mobilenet_v3 import (
    SMALL,
    InvertedResidual,
    MobileNetV3Cifar,
    Row,
    SqueezeExcitation,
    multiple_of_eight,
)


def test_sizes():
    model = MobileNetV3Cifar().eval()
    trunk = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("classifier"))
    # table 4 of the paper: 2.5 million with the layer of 1,024 and the 1,000 classes that are not built here
    assert trunk + (576 * 1024 + 1024) + (1024 * 1000 + 1000) == 2_542_856
    assert model.blocks(model.stem(torch.randn(1, 3, 32, 32))).shape == (1, 96, 4, 4)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("channels", "found"), [(4, 8), (12, 16), (24, 24), (18, 24), (60, 64), (144, 144)])
def test_widths_are_multiples_of_eight(channels, found):
    assert multiple_of_eight(channels) == found


def test_channels_are_weighed_by_their_means():
    torch.manual_seed(0)
    part = SqueezeExcitation(16).eval()
    x = torch.randn(3, 16, 5, 7)
    ratio = part(x) / x
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert ratio.min() > 0 and ratio.max() < 1
    means = x.mean((2, 3))
    narrow = torch.relu(means @ part.reduce.weight[:, :, 0, 0].T + part.reduce.bias)
    gate = ((narrow @ part.expand.weight[:, :, 0, 0].T + part.expand.bias) / 6 + 0.5).clamp(0, 1)
    torch.testing.assert_close(ratio[..., 0, 0], gate, rtol=1e-4, atol=1e-5)


def test_a_block_adds_its_input_where_the_shapes_agree():
    torch.manual_seed(0)
    block = InvertedResidual(40, SMALL[4]).eval()
    x = torch.randn(1, 40, 5, 5)
    torch.testing.assert_close(block(x) - x, block.layers(x), rtol=1e-4, atol=1e-5)
    assert not InvertedResidual(24, SMALL[3]).adds
    first = InvertedResidual(16, Row(3, 16, 16, True, False, 1))
    assert first.layers[0].groups == 16, "no expansion where the widths agree"
