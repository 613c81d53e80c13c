"""The reference itself, against sums written out by hand."""

import math

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.ops import reference
from anybit.tensors import quantize


def test_matmul_is_the_sum_of_products():
    x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [-1.0, 0.5]])
    assert reference.matmul(x, w, torch.tensor([10.0, 0.0])).tolist() == [[21.0, 0.0]]


def test_activations_are_rounded_by_row_with_float32_scales():
    x = torch.tensor([[127.0, 63.4, -1.4], [1.27, 0.004, 0.016]])
    got = reference.round_activations(x, TensorFormat.parse("int8/row"))
    torch.testing.assert_close(got, torch.tensor([[127.0, 63.0, -1.0], [1.27, 0.0, 0.02]]), rtol=1e-6, atol=1e-7)
    grouped = reference.round_activations(torch.full((1, 64), 1e-7), TensorFormat.parse("int8/g32"))
    torch.testing.assert_close(grouped, torch.full((1, 64), 1e-7), rtol=1e-6, atol=0)  # fp16 scales would be zero


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("int8/row", (8, 0)),
        ("int8/g64", (8, 64)),
        ("int4n/g128", (4, 128)),
        ("int6/row", (6, 0)),
        ("int8/g48", None),
        ("int8/row+z", None),
        ("int2n/row", (2, 0)),
        ("int2/row", None),
        ("int1/row", None),
        ("uint8/row", None),
        ("e4m3fn/row", None),
    ],
)
def test_which_activations_the_integer_kernels_take(spec, found):
    got = reference.integer_act(TensorFormat.parse(spec))
    assert got == reference.integer_act(spec)
    assert (got and (got.bits, got.group)) == found
    assert got is None or got.levels == TensorFormat.parse(spec).element.max


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("int16/row", (16, 0, "")),
        ("int16n/g64", (16, 64, "")),
        ("dfp16", (16, 0, "power")),
        ("int8/tensor", (8, 0, "any")),
        ("int4/tensor:e8m0", (4, 0, "power")),
        ("int8/row", (8, 0, "")),
        ("int2/tensor", None),
        ("int16/b4x32", None),
        ("uint8/tensor", None),
        ("int16", None),
    ],
)
def test_which_activations_weights_in_tiles_take_besides(spec, found):
    got = reference.integer_act(spec, tiles=True)
    assert (got and (got.bits, got.group, got.whole)) == found
    if found and (found[0] > 8 or found[2]):
        assert reference.integer_act(spec) is None


@pytest.mark.parametrize("spec", ["int8/tensor", "int8/tensor:e8m0", "int5/tensor", "dfp16"])
def test_one_scale_for_all_rows_clips_nothing(spec):
    x = torch.randn(7, 40, generator=torch.Generator().manual_seed(1))
    got = reference.round_activations(x[None], TensorFormat.parse(spec))[0]
    levels = TensorFormat.parse(spec).element.max
    step = float(x.abs().max()) / levels
    if spec.endswith(("e8m0", "dfp16")):
        step = 2.0 ** math.ceil(math.log2(step))
    torch.testing.assert_close(got, torch.round(x / step) * step, rtol=1e-6, atol=0)


def test_embedding_reads_rows():
    w = quantize(torch.randn(5, 8), TensorFormat.parse("int8/row"))
    assert torch.equal(reference.embedding(torch.tensor([4, 1]), w), w.dequantize()[[4, 1]])
