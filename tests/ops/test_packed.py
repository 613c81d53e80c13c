"""What packing keeps small, what it widens, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops.packed import element as element_of
from anybit.tensors import QTensor, quantize


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


@pytest.mark.parametrize("spec", ["nf4/g64", "nf4/row", "nf4/g20"])
@pytest.mark.parametrize("m", [1, 4, 7, 16, 40])
def test_int8_levels_are_the_codebook_in_127_steps(isa, spec, m):
    fmt = TensorFormat.parse(spec)
    values = np.asarray(fmt.element.values, np.float32)  # in the order of codes
    steps = np.rint(values / (np.abs(values).max() / np.float32(127)))
    assert np.abs(steps / 127 - values).max() <= 0.5 / 127  # 0.4 % of the largest
    rng = np.random.default_rng(m)
    w = quantize(torch.from_numpy(rng.standard_normal((37, 260)).astype(np.float32)), fmt)
    x = torch.from_numpy(rng.integers(-127, 128, (m, 260)).astype(np.float32))
    x[:, 0] = 127.0  # so that a row's scale is 1 and its codes are its numbers
    packed = ops.prepack(w, levels="int8")
    assert (packed.element, ops.prepack(w).element) == ("byte4", "word4")
    # integer sums are exact: what is rounded are a scaling and a sum for each group, the step of levels and the result
    group = fmt.block[1] or 260
    weights = steps[w.unpacked().numpy()] * np.repeat(w.scales().double().numpy(), group, 1)[:, :260]
    expected = x.double().numpy() @ weights.T / 127
    size = np.abs(x.double().numpy()) @ np.abs(weights).T / 127
    for act in ("int8/row", "bf16", None):
        got = ops.matmul(x, packed, act=None if act is None else TensorFormat.parse(act)).double().numpy()
        sums = 260 if act is None or act == "bf16" else 2 * (260 // group + 3)
        assert (np.abs(got - expected) <= (sums + 4) * np.finfo(np.float32).eps * size + 1e-30).all()


def test_int8_levels_equal_a_matrix_of_integers_bit_for_bit(isa):
    """The rounded codebook is int8 with one scale a row: the integer kernels must give the same bits."""
    fmt = TensorFormat.parse("nf4/row")
    w = quantize(torch.randn(40, 288, generator=torch.Generator().manual_seed(1)), fmt)
    values = np.asarray(fmt.element.values, np.float32)
    steps = np.rint(values / (np.abs(values).max() / np.float32(127))).astype(np.int8)
    codes = torch.from_numpy(steps[w.unpacked().numpy()].view(np.uint8).copy())
    integers = QTensor(codes, torch.ones_like(w.scale), None, None, tuple(w.shape), TensorFormat.parse("int8/row"))
    ones = replace(w, scale=torch.ones_like(w.scale))
    x = torch.randint(-127, 128, (9, 288)).float()
    x[:, 0] = 127.0
    act = TensorFormat.parse("int8/row")
    got = ops.matmul(x, ops.prepack(ones, levels="int8"), act=act)
    unit = torch.tensor(np.abs(values).max() / np.float32(127))
    assert torch.equal(got, ops.matmul(x, ops.prepack(integers), act=act) * unit)


def test_levels_leave_all_but_wide_codebooks_alone(isa):
    x = torch.randn(3, 64)
    for spec in ("int4/g32", "e2m1/g32:e8m0", "e4m3fn/row", "uint4/g32+z"):
        w = quantize(torch.randn(16, 64), TensorFormat.parse(spec))
        assert torch.equal(ops.matmul(x, ops.prepack(w, levels="int8")), ops.matmul(x, ops.prepack(w)))
    with pytest.raises(ValueError, match="levels of a codebook are exact or int8; got 'int9'"):
        ops.prepack(torch.randn(4, 4), levels="int9")
