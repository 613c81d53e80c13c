"""The base of the quantized modules: buffers are the value, on any device, and `empty` has a checkpoint's shapes."""

import torch

from anybit.formats import TensorFormat
from anybit.nn import Holder
from anybit.nn.holder import empty
from anybit.tensors import quantize


def test_empty_has_the_shapes_of_a_quantized_tensor():
    for spec in ("int3/g48+z", "nvfp4", "e4m3fn/b4x8", "ternary/tensor", "mxfp8"):
        fmt = TensorFormat.parse(spec)
        want = quantize(torch.randn(12, 50), fmt).tensors()
        got = empty((12, 50), fmt).tensors()
        assert {k: (v.shape, v.dtype) for k, v in got.items()} == {k: (v.shape, v.dtype) for k, v in want.items()}


def test_weight_is_the_value_it_was_made_from():
    q = quantize(torch.randn(9, 40), TensorFormat.parse("int5/g16"))
    held = Holder(q)
    assert torch.equal(held.weight.dequantize(), q.dequantize())
    assert held.weight.format == q.format
    assert "int5/g16" in repr(held)


def test_moves_to_another_device_with_its_dtypes():
    held = Holder(quantize(torch.randn(8, 32), TensorFormat.parse("int4/g16"))).to("meta")
    assert held.codes.device.type == held.scale.device.type == "meta"
    assert (held.codes.dtype, held.scale.dtype) == (torch.uint8, torch.float16)
