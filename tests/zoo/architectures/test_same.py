"""TensorFlow's rule for SAME, written out: ceil(n / s) outputs, the smaller half of the padding in front."""

import pytest
import torch
import torch.nn.functional as F

from anybit.zoo.architectures.same import SameConv2d

CASES = [(8, 3, 2, 0, 1), (7, 3, 2, 1, 1), (9, 3, 1, 1, 1), (10, 4, 2, 1, 1), (49, 10, 2, 4, 5)]


@pytest.mark.parametrize(("size", "kernel", "stride", "front", "back"), CASES)
def test_padding(size, kernel, stride, front, back):
    torch.manual_seed(0)
    layer = SameConv2d(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size)
    expected = F.conv2d(F.pad(x, (front, back, front, back)), layer.conv.weight, layer.conv.bias, stride)
    assert torch.equal(layer(x), expected) and expected.shape[-1] == -(-size // stride)
