"""NF4 against the table of the paper, nearest by enumeration."""

import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import nf4

PAPER = [-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0, 0.0795803, 0.1609302, 0.2461123,
         0.33791524, 0.44070983, 0.562617, 0.72295684, 1]  # fmt: skip
"""QLoRA, appendix E."""


def test_codes_are_the_nearest_levels_of_each_block() -> None:
    weight = torch.randn(4, 128)
    done = nf4.quantize(weight, TensorFormat.parse("nf4/g64:fp32")).qtensor
    levels = torch.tensor(PAPER)
    for row in range(4):
        for block in range(2):
            part = weight[row, 64 * block : 64 * block + 64]
            nearest = (part[:, None] / part.abs().max() - levels).abs().argmin(1)
            assert torch.equal(done.unpacked()[row, 64 * block : 64 * block + 64].long(), nearest)


def test_doubly_quantized_scales_take_an_eighth_of_a_bit_and_lose_little() -> None:
    weight = torch.randn(256, 512) * torch.exp(0.3 * torch.randn(256, 1))
    single = nf4.quantize(weight, TensorFormat.parse("nf4/g64:fp32"))
    double = nf4.quantize(weight, TensorFormat.parse(nf4.FORMAT))
    assert double.qtensor.bits_per_weight == pytest.approx(4 + 8 / 64, abs=1e-3)
    assert double.report.relative_error < 1.1 * single.report.relative_error


def test_again_changes_nothing() -> None:
    once = nf4.quantize(torch.randn(8, 64), TensorFormat.parse("nf4/g64:fp32")).qtensor
    twice = nf4.quantize(once.dequantize(), TensorFormat.parse("nf4/g64:fp32")).qtensor
    assert torch.equal(once.codes, twice.codes) and torch.equal(once.scale, twice.scale)


def test_another_format_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"quantizes to nf4, such as nf4/g64:e4m3fn\+t; got int4/g64"):
        nf4.quantize(torch.randn(4, 64), TensorFormat.parse("int4/g64"))
