"""The rounding is absmax, and errors of activations rounded too fall under smoothing."""

import torch

from anybit.formats import TensorFormat
from anybit.quantize import smoothquant
from anybit.tensors import quantize
from anybit.transforms.smooth import smoothing_scales


def test_rounds_to_nearest_on_the_grid_of_the_largest_weight() -> None:
    weight = torch.randn(6, 40)
    done = smoothquant.quantize(weight, TensorFormat.parse("int8/row"))
    scale = weight.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(done.qtensor.dequantize(), torch.round(weight / scale) * scale, rtol=1e-5, atol=1e-6)
    assert done.report.method == "smoothquant"


def test_smoothing_before_helps_where_activations_have_outliers() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 128, generator=g), torch.randn(32, 128, generator=g)
    x[:, 7] *= 60
    exact, fmt = x @ weight.T, TensorFormat.parse("int8/row")
    s = smoothing_scales(x.abs().amax(0), [weight])
    errors = []
    for a, w in ((x, weight), (x / s, weight * s)):
        y = quantize(a, fmt).dequantize() @ smoothquant.quantize(w, fmt).qtensor.dequantize().T
        errors.append(float((y - exact).norm() / exact.norm()))
    assert errors[1] < errors[0] / 2
