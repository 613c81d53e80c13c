"""What packing keeps small, what it widens, and what it refuses."""

import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops.packed import element as element_of
from anybit.tensors import quantize


@pytest.mark.parametrize(
    ("spec", "bits"), [("int4/g128", 4), ("int3/g128", 3), ("int8/row", 8), ("nf4/g128", 4), ("ternary/row", 2)]
)
def test_packed_weights_stay_as_small_as_their_codes(spec, bits):
    packed = ops.prepack(quantize(torch.randn(128, 512), TensorFormat.parse(spec)))
    codes = 128 * 512 * bits // 8
    assert codes <= packed.nbytes <= codes * 1.08
    assert packed.integer


def test_wider_floats_are_held_as_sixteen_bits_and_multiply_exactly():
    packed = ops.prepack(quantize(torch.randn(32, 64), TensorFormat.parse("e4m3fn/row")))
    assert not packed.integer
    assert packed.nbytes >= 32 * 64 * 2


def test_plain_tensors_keep_their_dtype():
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        packed = ops.prepack(torch.randn(32, 64).to(dtype))
        assert (packed.n, packed.k, packed.format) == (32, 64, None)
        assert packed.nbytes == 32 * 64 * size


def test_refuses_what_is_not_a_matrix():
    with pytest.raises(ValueError, match=r"matrix \[out, in\]; got the shape \(4,\)"):
        ops.prepack(torch.randn(4))


@pytest.mark.parametrize(("spec", "element"), [
    ("int4/g32", "integer4"), ("uint1/g32", "integer1"), ("bipolar1/g32", "integer1"), ("ternary/row", "integer2"),
    ("int8/row", "integer8"), ("int16/row", "int16"), ("dfp16", "int16"),
    ("int4n/g32", "integer4"), ("e2m1/g32", "byte4"), ("nf4/g32", "word4"), ("e4m3fn/row", "bf16"), ("e5m2/row", "bf16"), ("bf16", "bf16"),
    ("fp16", "fp16"), ("fp32", "fp32"), ("uint4/g32+z", "integer4"), ("e3m2/row", "bf16"),
])  # fmt: skip
def test_elements_are_what_is_packed(spec, element):
    """What a format is said to be held as, without packing it, is what packing makes of it."""
    fmt = TensorFormat.parse(spec)
    weight = torch.randn(32, 64)
    plain = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    packed = ops.prepack(weight.to(plain[spec]) if spec in plain else quantize(weight, fmt))
    assert packed.element == element_of(fmt) == element
