"""QConv2d against torch's convolution with the dequantized weight, over the geometries users have."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anybit.formats import TensorFormat
from anybit.nn import QConv2d

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
