"""Sums of one-bit products against integer products in numpy, for every pair of widths and rules of signs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native, reference
from anybit.ops.bitserial import (
    BITSERIAL,
    bitserial_linear,
    bitserial_matmul,
    grouped_product,
    pair_counts,
    plane_products,
    reason,
    sums,
)
from anybit.ops.dispatch import Problem, choose
from anybit.tensors import quantize
from anybit.tensors.bitplanes import SIGN_RULES, BitPlanes, bit_planes

RULES = tuple(SIGN_RULES)


def planes(rows: int, cols: int, bits: int, rule: str, group: int = 0, offset: int = 0, seed: int = 0) -> BitPlanes:
    codes = torch.randint(0, 2**bits, (rows, cols), generator=torch.Generator().manual_seed(seed))
    return bit_planes(codes, bits, rule, group, offset)  # type: ignore[arg-type]


@pytest.mark.parametrize("x_bits", range(1, 9))
@pytest.mark.parametrize("w_bits", range(1, 9))
def test_every_pair_of_widths_and_rules_is_exact(x_bits: int, w_bits: int) -> None:
    for x_rule in RULES:
        for w_rule in RULES:
            x = planes(3, 131, x_bits, x_rule, seed=1)
            w = planes(5, 131, w_bits, w_rule, seed=2)
            assert torch.equal(bitserial_matmul(x, w), x.values() @ w.values().T)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 17),
    st.integers(1, 9),
    st.integers(1, 300),
    st.sampled_from([0, 8, 64, 100]),
    st.integers(-3, 3),
    st.integers(-3, 3),
)
def test_odd_sizes_groups_and_offsets(m: int, n: int, k: int, group: int, a: int, b: int) -> None:
    x, w = planes(m, k, 3, "twos", group, a), planes(n, k, 2, "bipolar", group, b, seed=1)
    grouped = grouped_product(x, w)
    for g in range(x.groups):
        part = slice(g * group, (g + 1) * group) if group else slice(None)
        assert torch.equal(grouped[g], x.values()[:, part] @ w.values()[:, part].T)
        assert torch.equal(sums(x)[:, g], x.values()[:, part].sum(1))
    assert torch.equal(grouped.sum(0), bitserial_matmul(x, w))


def test_one_constant_serves_all_pairs_of_bipolar_planes() -> None:
    """Y = K (2^n - 1) (2^m - 1) - 2 sum 2^(i + j) popcount(x_i ^ w_j) (arXiv 2409.17870), for an odd K that fills no word."""
    n, m, k = 3, 4, 77
    x, w = planes(6, k, n, "bipolar"), planes(7, k, m, "bipolar", seed=1)
    a, b = (p.words.numpy().view(np.uint64)[:, :, 0] for p in (x, w))
    total = np.full((6, 7), k * (2**n - 1) * (2**m - 1))
    for i in range(n):
        for j in range(m):
            total -= 2 * 2 ** (i + j) * np.bitwise_count(a[i][:, None] ^ b[j][None]).sum(-1, dtype=np.int64)
    assert np.array_equal(total, bitserial_matmul(x, w))


def test_the_and_form_equals_the_xor_form() -> None:
    """popcount(x ^ w) = popcount(x) + popcount(w) - 2 popcount(x & w), for hardware that has no exclusive or."""
    bits_x, bits_w = planes(4, 100, 2, "unsigned"), planes(5, 100, 3, "unsigned", seed=1)
    signs_x, signs_w = planes(4, 100, 2, "bipolar"), planes(5, 100, 3, "bipolar", seed=1)
    common, signed = plane_products(bits_x, bits_w), plane_products(signs_x, signs_w)
    count_x = bits_x.digits().long().sum(-1)[:, None, None, :, None]
    count_w = bits_w.digits().long().sum(-1)[None, :, None, None, :]
    assert torch.equal(signed, 100 - 2 * (count_x + count_w - 2 * common))


def test_planes_with_scales_of_their_own() -> None:
    generator = torch.Generator().manual_seed(0)
    x = planes(3, 90, 2, "twos", group=32)
    codes = torch.randint(0, 8, (4, 90), generator=generator)
    w = bit_planes(codes, 3, "bipolar", 32, scale=torch.rand(3, 4, 3, generator=generator))
    expected = x.values().double() @ w.values().T
    assert torch.allclose(bitserial_matmul(x, w), expected, rtol=1e-13)


@pytest.mark.parametrize(("weights", "act"), [
    ("int2/row", "int2/row"), ("int4/g32", "int8/row"), ("int6n/g128", "int6n/g128"), ("uint4/g64+z", "uint8/row+z"),
    ("bipolar2/g64", "int4/g32"), ("ternary/tensor", "int8/row"), ("int1/row", "bipolar1/row"), ("uint3/g50+z", "int5/row"),
    ("int8/b4x64", "int8/g64"), ("bipolar3/row", "uint4/row+z"),
])  # fmt: skip
def test_a_layer_is_the_reference_layer(weights: str, act: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 300, generator=generator)
    w = quantize(torch.randn(9, 300, generator=generator), TensorFormat.parse(weights))
    bias = torch.randn(9, generator=generator)
    spec = TensorFormat.parse(act)
    y = bitserial_linear(x, w, spec, bias)
    expected = reference.matmul(x, w, bias, spec, torch.float64)
    bound = 4e-7 * (reference.round_activations(x, spec).abs() @ w.dequantize().abs().T + bias.abs())
    assert y.shape == (2, 3, 9) and y.dtype == torch.float32
    assert ((y - expected).abs() <= bound).all()
    assert bitserial_linear(x[:0], w, spec).shape == (0, 3, 9)


def test_what_planes_do_not_multiply_is_said() -> None:
    parse = TensorFormat.parse
    assert reason(parse("int8/row"), parse("int4/g128"), 256) is None
    for act, weights, why in [
        (None, "int4/row", "activations must be rounded to at most 8 bits"),
        ("int16/row", "int4/row", "activations of 16 bits are more than 8 planes"),
        ("int8/row", "e2m1/g32", "values of e2m1 are no weighted sums"),
        ("int8/tensor", "int4/row", "scales over several rows of x"),
        ("int8/g48", "int4/g32", "groups of 48 activations and 32 weights do not lie in one another"),
    ]:
        found = reason(None if act is None else parse(act), parse(weights), 256)
        assert found is not None and why in found
    w = quantize(torch.randn(4, 64), parse("nf4/g64"))
    with pytest.raises(FormatError, match="cannot multiply x as int8/row with nf4/g64: the values of nf4"):
        bitserial_linear(torch.randn(2, 64), w, parse("int8/row"))
    with pytest.raises(
        FormatError, match="64 columns in groups of 64 cannot be multiplied with those of 64 columns in groups of 32"
    ):
        bitserial_matmul(planes(2, 64, 1, "twos"), planes(2, 64, 1, "twos", group=32))
    scaled = bit_planes(torch.zeros(2, 64, dtype=torch.uint8), 1, "unsigned", offset=1, scale=torch.ones(1, 2, 1))
    with pytest.raises(FormatError, match="cannot have an offset as well; got 1"):
        bitserial_matmul(scaled, planes(2, 64, 1, "twos"))
    with pytest.raises(FormatError, match="sums of integers are asked for"):
        sums(scaled)


def test_the_entry_for_dispatch() -> None:
    problem = Problem(2, 8, 64, "int2/row", 128, "int2/row", False, False, 0, False)
    choice = choose((BITSERIAL,), problem)
    w = quantize(torch.randn(8, 64), TensorFormat.parse("int2/row"))
    x = torch.randn(2, 64)
    act = TensorFormat.parse("int2/row")
    assert torch.equal(choice.kernel.run(x, w, None, act), bitserial_linear(x, w, act))
    assert BITSERIAL.cost(problem) > 0
    wide = Problem(2, 8, 64, "int2/row", 128, "int8/row", False, False, 0, False)
    assert BITSERIAL.cost(Problem(2, 4096, 4096, "int2/row", 0, "int2/row", False, False, 0, False)) < BITSERIAL.cost(
        Problem(2, 4096, 4096, "int2/row", 0, "int8/row", False, False, 0, False)
    )
    assert BITSERIAL.accepts(wide) is None
    for bad in (
        Problem(2, 8, 64, "int2/row", 128, None, False, False, 0, False),
        Problem(2, 8, 64, "plain", 128, "int2/row", False, False, 0, False),
        Problem(2, 8, 64, "int2/row", 128, "int2/row", True, True, 0, False),
    ):
        assert BITSERIAL.accepts(bad)


@pytest.mark.parametrize("exclusive", [False, True])
def test_compiled_counts_are_those_of_numpy(isa: str, exclusive: bool) -> None:
    """Odd numbers of rows on both sides, groups of one line, and rows so long that counts in bytes are emptied on the way."""
    assert native.load() is not None
    rng = np.random.default_rng(5)
    for planes, rows, columns, groups, words in (
        (1, 1, 1, 1, 8),
        (2, 5, 7, 3, 8),
        (1, 4, 19, 2, 16),
        (1, 3, 6, 1, 8 * 67),
    ):
        a = rng.integers(0, 2**64, (planes, rows, groups, words), np.uint64)
        b = rng.integers(0, 2**64, (3 - planes, columns, groups, words), np.uint64)
        a[:, 0] = b[:, 0] = 2**64 - 1
        found = pair_counts(a, b, exclusive)
        assert np.array_equal(found, pair_counts(a, b, exclusive, compiled=False))


@pytest.mark.parametrize("x_rule", RULES)
@pytest.mark.parametrize("w_rule", RULES)
def test_groups_of_whole_lines_are_exact(x_rule: str, w_rule: str) -> None:
    """Every mixture of rules of signs on compiled counts, two groups of 512 columns, with two threads."""
    x, w = planes(3, 1024, 2, x_rule, 512, seed=1), planes(21, 1024, 3, w_rule, 512, seed=2)
    true = x.values().long().numpy() @ w.values().long().numpy().T
    assert np.array_equal(bitserial_matmul(x, w).numpy(), true)


@pytest.mark.parametrize(("m", "k"), [(0, 512), (2, 0)])
def test_nothing_to_count(m: int, k: int) -> None:
    x, w = planes(m, k, 2, "twos"), planes(5, k, 2, "twos")
    assert bitserial_matmul(x, w).shape == (m, 5) and not bitserial_matmul(x, w).any()


def test_native_counts_refuse_what_does_not_fit() -> None:
    count = native.loaded().count_pairs
    a, b = np.zeros((2, 1, 8), np.uint64), np.zeros((3, 1, 16), np.uint64)
    with pytest.raises(ValueError, match="the same words in the same groups"):
        count(a, b, False, np.empty((1, 2, 3), np.int32))
    with pytest.raises(ValueError, match="whole lines of 512 bits; got 7 words"):
        count(np.zeros((2, 1, 7), np.uint64), np.zeros((3, 1, 7), np.uint64), False, np.empty((1, 2, 3), np.int32))
    with pytest.raises(ValueError, match="the output has the wrong shape"):
        count(a, a, False, np.empty((1, 2, 3), np.int32))
