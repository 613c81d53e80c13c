"""The rounding is that of blocks with one exponent."""

import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import block_quant_outliers


def test_weights_are_block_floating_point() -> None:
    w = torch.randn(6, 70) * 3
    done = block_quant_outliers.quantize(w, TensorFormat.parse(block_quant_outliers.FORMAT))
    for start in range(0, 70, 32):
        block = w[:, start : start + 32].double()
        unit = torch.exp2(torch.floor(torch.log2(block.abs().amax(1, keepdim=True))) - 6)
        wanted = (block / unit).round().clamp(-128, 127) * unit
        assert torch.equal(done.qtensor.dequantize()[:, start : start + 32].double(), wanted)
    assert done.report.method == "block_quant_outliers"


def test_nan_is_refused() -> None:
    with pytest.raises(RecipeError, match="NaN"):
        block_quant_outliers.quantize(torch.full((2, 32), float("nan")), TensorFormat.parse("int8/g32:e8m0"))
