"""The native pass gives the bits of `QTensor.dequantize` without it, which other tests hold against oracles of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from anybit.formats import TensorFormat, native
from anybit.tensors import QTensor, decoding, quantize

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built (make native)")

SPECS = ["mxfp4", "mxfp8", "e2m3/g32:e8m0", "nvfp4", "int2/g32", "int3/g64", "int4/g128+z", "int4/tensor", "uint5/g16+z", "int6/b16x32",
         "int7/b3x*", "int8/row", "nf4/g64", "ternary/row", "bipolar1/g32", "e4m3fn/row", "e5m2/g32+t", "e4m3fn"]  # fmt: skip
SHAPES = [(64, 128), (33, 100), (40, 3, 37), (1, 9001), (9001, 1)]


def readable(q: QTensor, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr("anybit.tensors.qtensor.dequantized", lambda *_: None)
        return q.dequantize(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
def test_equals_the_readable_code(spec: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    fmt, fast = TensorFormat.parse(spec), 0
    for shape in SHAPES:
        q = quantize(torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))), fmt)
        fast += decoding.dequantized(q.codes, fmt, q.col_count, q.scales(), q.zeros()) is not None
        got, wanted = q.dequantize(dtype), readable(q, monkeypatch, dtype)
        assert got.dtype == dtype and got.shape == torch.Size(shape)
        assert torch.equal(got.view(torch.uint8), wanted.contiguous().view(torch.uint8))
    assert fast >= 3


def test_codes_of_every_value_and_not_a_number() -> None:
    fmt = TensorFormat.parse("e5m2/g32")
    codes = torch.arange(256, dtype=torch.uint8).repeat(8).reshape(8, 256)
    q = QTensor(codes, torch.full((8, 8), 0.5, dtype=torch.float16), None, None, (8, 256), fmt)
    wanted = fmt.element.decode(codes) * 0.5
    assert torch.equal(q.dequantize().nan_to_num(1.5), wanted.nan_to_num(1.5)) and wanted.isnan().any()


def test_a_code_without_a_value_is_refused_as_ever() -> None:
    q = quantize(torch.randn(64, 128), TensorFormat.parse("ternary/row"))
    broken = replace(q, codes=torch.full_like(q.codes, 255))
    assert decoding.dequantized(broken.codes, q.format, 128, q.scales(), None) is None
    with pytest.raises((ValueError, IndexError)):
        broken.dequantize()


def test_gradients_reach_the_scales() -> None:
    q = quantize(torch.randn(64, 128), TensorFormat.parse("int4/g32:fp32"))
    scale = q.scale.clone().requires_grad_()
    replace(q, scale=scale).dequantize().sum().backward()
    assert scale.grad is not None and scale.grad.shape == scale.shape
