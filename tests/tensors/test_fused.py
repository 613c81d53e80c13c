"""The fused pass gives the bits of block_scales and encode, which the other tests of this folder hold against oracles of their own."""

from __future__ import annotations

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat, native
from anybit.tensors import fused, quantize, quantizing

MODULE = native.module()
pytestmark = pytest.mark.skipif(MODULE is None, reason="the native module is not built (make native)")
ISAS = [] if MODULE is None else [name for name, _, present in MODULE.isas() if present]

SPECS = ["mxfp4", "mxfp6", "mxfp8", "e2m3/g32:e8m0", "nvfp4", "int4/g128", "int4n/g32", "int8/row", "int3/g64", "int5/g16:bf16",
         "int6/g32:e5m2", "nf4/g64", "ternary/row", "e4m3fn/row", "int8/g128:e8m0+t", "e5m2/g32+t", "bipolar3/g48",
         "int4/g40:e4m3fn", "bipolar1/g32", "int7/g24"]  # fmt: skip
SHAPES = [(7, 128), (3, 100), (5, 3, 37), (1, 1), (4, 2050), (33, 1)]


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    """Normal numbers; magnitudes of 60 decades; subnormal ones of both signs and zeros; a row of zeros."""
    g = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=g)
    wild = x * 10.0 ** torch.randint(-30, 30, shape, generator=g)
    holed = x.clone()
    holed[0] = 0
    largest = 6e4 if dtype == torch.float16 else 3e38
    return [t.clamp(-largest, largest).to(dtype) for t in (x, wild, x * 1e-44, holed)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", SPECS)
def test_fused_equals_scales_then_codes(spec: str, dtype: torch.dtype) -> None:
    fmt = TensorFormat.parse(spec)
    for shape in SHAPES:
        for x in inputs(shape, dtype):
            for mode, key in (("nearest_even", None), ("stochastic", (3, 5))):
                got = fused.quantize_absmax(x, quantizing.matrix_view(x), fmt, mode, key)
                assert got is not None
                expected = quantizing.encode(x, fmt, *quantizing.block_scales(x, fmt), mode, key)
                assert torch.equal(got.codes, expected.codes)
                assert got.scale.dtype == expected.scale.dtype and got.shape == expected.shape
                assert torch.equal(got.scale.view(torch.uint8), expected.scale.view(torch.uint8))
                if fmt.tensor_scale:
                    assert got.tensor_scale.shape == () and torch.equal(got.tensor_scale, expected.tensor_scale)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 3])
def test_isas_and_threads_give_the_same_bits(isa: str, threads: int) -> None:
    x = torch.randn(50, 1300, generator=torch.Generator().manual_seed(4))
    before = MODULE.isa(), MODULE.threads()
    try:
        MODULE.set_isa(isa)
        MODULE.set_threads(threads)
        for spec in ("mxfp4", "nvfp4", "int3/g128", "mxfp6"):
            fmt = TensorFormat.parse(spec)
            expected = quantizing.encode(x, fmt, *quantizing.block_scales(x, fmt))
            got = fused.quantize_absmax(x, x, fmt, "nearest_even", None)
            assert torch.equal(got.codes, expected.codes)
            assert torch.equal(got.scale.view(torch.uint8), expected.scale.view(torch.uint8))
    finally:
        MODULE.set_isa(before[0])
        MODULE.set_threads(before[1])


@pytest.mark.parametrize(
    "spec", ["int2/g32", "int4/g32+z", "int4/tensor", "e2m1/b16x32:e8m0", "uint4/g32", "fp16/row", "int16/row"]
)
def test_formats_without_a_fused_pass_are_left_to_the_readable_code(spec: str) -> None:
    fmt, x = TensorFormat.parse(spec), torch.randn(32, 64)
    assert fused.quantize_absmax(x, x, fmt, "nearest_even", None) is None
    assert quantize(x, fmt).shape == (32, 64)


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("-inf"), "infinity")])
@pytest.mark.parametrize("spec", ["mxfp4", "nvfp4"])
def test_values_without_a_scale_are_refused_in_the_same_words(spec: str, value: float, word: str) -> None:
    x = torch.randn(40, 96)
    x[17, 70] = value
    with pytest.raises(FormatError, match=f"the tensor to quantize holds {word}, for which"):
        quantize(x, TensorFormat.parse(spec))


def test_a_transposed_matrix_and_gradients_are_taken() -> None:
    fmt = TensorFormat.parse("int4/g32")
    w = torch.nn.Parameter(torch.randn(64, 96, generator=torch.Generator().manual_seed(6)))
    assert torch.equal(quantize(w.T, fmt).codes, quantize(w.detach().T.contiguous(), fmt).codes)
