"""QConv2d against torch's convolution with the dequantized weight, over the geometries users have."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anybit.formats import TensorFormat
from anybit.nn import QConv2d
from anybit.nn.conv import patches

GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (1, 3), "stride": (2, 1), "padding": (0, 1)},
    {"kernel_size": 3, "dilation": 2, "padding": "same"},
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1, "groups": 3},
    {"kernel_size": 5, "groups": 6, "padding": "valid"},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("spec", ["int8/row", "int4/g16"])
def test_equals_torch_with_the_dequantized_weight(geometry, spec):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, **geometry)
    q = QConv2d.from_float(layer, TensorFormat.parse(spec))
    assert q.weight.shape == layer.weight.shape
    x = torch.randn(2, 6, 11, 9)
    with torch.no_grad():
        layer.weight.copy_(q.weight.dequantize())
        want = layer(x)
    torch.testing.assert_close(q(x), want, atol=1e-5, rtol=1e-5)


def test_patches_are_those_that_torch_unfolds():
    draw, compared = random.Random(0), 0
    for _ in range(200):
        kernel, dilation, padding, stride = (
            tuple(draw.choice(choices) for _ in range(2))
            for choices in ((1, 2, 3, 5, 7), (1, 2, 3), range(5), (1, 2, 4))
        )
        x = torch.randn(draw.randint(0, 3), draw.randint(1, 5), draw.randint(1, 20), draw.randint(1, 20))
        if any(x.shape[2 + i] + 2 * padding[i] <= dilation[i] * (kernel[i] - 1) for i in range(2)):
            with pytest.raises(ValueError, match="larger than images"):
                patches(x, kernel, dilation, padding, stride)
            continue
        wanted = F.unfold(x, kernel, dilation, padding, stride).transpose(1, 2)
        assert torch.equal(patches(x, kernel, dilation, padding, stride), wanted)
        compared += 1
    assert compared > 100


def test_patches_of_other_tensors_take_the_way_of_torch():
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
    assert patches(x, (3, 3), (1, 1), (1, 1), (2, 2)).dtype == torch.float64
    learned = torch.randn(1, 2, 5, 5, requires_grad=True)
    patches(learned, (3, 3), (1, 1), (1, 1), (2, 2)).sum().backward()
    assert learned.grad is not None and learned.grad[0, 0, 1, 1] == 4
    turned = torch.randn(5, 5, 2, 1).permute(3, 2, 0, 1)
    assert torch.equal(
        patches(turned, (3, 3), (1, 1), (0, 0), (1, 1)), patches(turned.contiguous(), (3, 3), (1, 1), (0, 0), (1, 1))
    )


def test_state_dict_round_trip():
    a, b = (QConv2d.from_float(nn.Conv2d(4, 8, 3), TensorFormat.parse("int4/row")) for _ in range(2))
    b.load_state_dict(a.state_dict())
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(a(x), b(x), rtol=0, atol=0)
    torch.testing.assert_close(a(x), F.conv2d(x, a.weight.dequantize(), a.bias), atol=1e-5, rtol=1e-5)


def test_refuses_padding_it_cannot_do():
    with pytest.raises(ValueError, match="only zero padding"):
        QConv2d.from_float(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), TensorFormat.parse("int8/row"))
    with pytest.raises(ValueError, match="not symmetric"):
        QConv2d.from_float(nn.Conv2d(4, 4, 2, padding="same"), TensorFormat.parse("int8/row"))
