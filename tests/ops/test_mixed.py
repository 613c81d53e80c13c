"""The product of several formats against the product of the values."""

from __future__ import annotations

import pytest
import torch

from anybit import _native
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import matmul as ops_matmul
from anybit.ops import prepack, reference
from anybit.ops.mixed import MixedPacked, mixed_matmul, round_two_widths, two_width_matmul
from anybit.tensors import quantize
from anybit.tensors.mixed import quantize_mixed

parse = TensorFormat.parse


def problem(axis: int, n: int = 37, k: int = 192):
    generator = torch.Generator().manual_seed(axis)
    x, w = torch.randn(2, 3, k, generator=generator), torch.randn(n, k, generator=generator)
    choice = (torch.rand((n, k)[axis], generator=generator) < 0.7).long()
    return x, quantize_mixed(w, [parse("int8/g32"), parse("int4/g32")], choice, axis)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_exact_activations(axis: int, packed: bool) -> None:
    x, w = problem(axis)
    bias = torch.randn(37)
    y = mixed_matmul(x, MixedPacked.of(w) if packed else w, bias)
    true = x.double() @ w.dequantize().double().T + bias
    assert y.shape == (2, 3, 37) and torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)


def test_rows_of_both_widths_meet_the_same_rounded_activations() -> None:
    x, w = problem(0)
    act = parse("int8/g32")
    y = mixed_matmul(x, w, act=act)
    true = reference.round_activations(x, act).double() @ w.dequantize().double().T
    assert torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)


def test_columns_of_each_part_are_rounded_in_their_own_way() -> None:
    x, w = problem(1)
    acts = [parse("int8/g32"), parse("int4/g32")]
    y = mixed_matmul(x, w, act=acts)
    true = sum(
        reference.round_activations(x[..., which], act).double() @ part.dequantize().double().T
        for which, act, part in zip(w.members, acts, w.parts, strict=True)
    )
    assert torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    x, w = problem(0)
    with pytest.raises(FormatError, match="x has 191 columns, the weight 192"):
        mixed_matmul(x[..., 1:], w)
    with pytest.raises(FormatError, match="3 formats of activations cannot serve 2 parts"):
        mixed_matmul(x, w, act=[None, None, None])


@pytest.mark.parametrize("spec", ["int4/g128", "uint4/g64+z", "nf4/g64", "int8/row"])
@pytest.mark.parametrize(("m", "k", "wide"), [(1, 512, 1), (5, 640, 2), (19, 300, 3), (3, 256, 0)])
def test_activations_of_two_widths(spec, m, k, wide):
    generator = torch.Generator().manual_seed(k)
    x, weight = torch.randn(m, k, generator=generator), torch.randn(33, k, generator=generator)
    w, act, bias = quantize(weight, TensorFormat.parse(spec)), TensorFormat.parse("int4n/g128"), torch.randn(33)
    rounded = round_two_widths(x, act, wide).double()
    assert len(torch.unique(rounded[0, :128])) > 15 if wide else len(torch.unique(rounded[0, :128])) <= 15
    assert len(torch.unique(rounded[0, wide * 128 : wide * 128 + 128])) <= 15
    y = rounded @ w.dequantize().double().T + bias.double()
    slack = rounded.abs().sum(-1, keepdim=True) * w.scales().abs().max()
    size = rounded.abs() @ w.dequantize().double().abs().T + slack * 2**w.format.bits
    got = two_width_matmul(x, prepack(w), act, wide, bias)
    # two digits a level of nf4: 1/32512 of its largest value each
    level = slack / 16000 if spec.startswith("nf4") else 0.0
    assert ((got.double() - y).abs() <= (2 * k + 8) * 2**-24 * size + level).all()


def test_two_widths_are_refused_where_they_make_no_sense():
    x, w = torch.randn(2, 256), prepack(quantize(torch.randn(8, 256), TensorFormat.parse("int4/g128")))
    act = TensorFormat.parse("int4n/g128")
    with pytest.raises(FormatError, match=r"two widths need signed integers with scales of groups .*; got int4n/row"):
        two_width_matmul(x, w, TensorFormat.parse("int4n/row"), 1)
    with pytest.raises(FormatError, match="3 of the 2 groups of x cannot be of 8 bits"):
        two_width_matmul(x, w, act, 3)
    with pytest.raises(FormatError, match="x has 128 columns, the weight 256"):
        two_width_matmul(x[:, :128], w, act, 1)
    with pytest.raises(FormatError, match="multiply packed integers"):
        two_width_matmul(x, prepack(torch.randn(8, 256)), act, 1)


@pytest.mark.parametrize("isa", [name for name, _, supported in _native.isas() if supported])
@pytest.mark.parametrize("act", ["int8/row", "int8/g32", "int6n/row"])
@pytest.mark.parametrize("m", [1, 5, 20])
def test_rows_of_packed_parts_are_one_call_with_the_same_bits(act, m, isa):
    _, w = problem(0, 77)
    x, act = torch.randn(m, 2, 192, generator=torch.Generator().manual_seed(m)), parse(act)
    bias, packed = torch.randn(77), MixedPacked.of(w)
    apart = [ops_matmul(x, prepack(part), act=act) for part in w.parts]
    expected = torch.cat(apart, -1).index_select(-1, w.places)
    try:
        _native.set_isa(isa)
        for _ in range(3):
            assert torch.equal(mixed_matmul(x, packed, bias, act), expected + bias)
        assert packed.quick[0][0] is act and torch.equal(packed.quick[0][1](x, None), expected)
    finally:
        _native.set_isa("auto")
    other = parse("int8/g64")  # and other activations, numbers of rows and types after it
    for rows, fmt in ((x, other), (x[:1], act), (x[:1].double(), act)):
        apart = [ops_matmul(rows, prepack(part), act=fmt) for part in w.parts]
        assert torch.equal(mixed_matmul(rows, packed, None, fmt), torch.cat(apart, -1).index_select(-1, w.places))


def test_parts_name_every_row_once():
    _, w = problem(0)
    handles = [prepack(part).handle for part in w.parts]
    first, second = (which.numpy() for which in w.members)
    for members, why in (
        ([first], "rows that are its own"),
        ([second, first], "part 0 has"),
        ([first, second[:-1]], "part 1 has"),
    ):
        with pytest.raises(ValueError, match=why):
            _native.parts(handles, members)
    for wrong in (37, -1, int(first[0])):
        bad = second.copy()
        bad[-1] = wrong
        with pytest.raises(ValueError, match=f"row {wrong} is named twice or lies outside the whole"):
            _native.parts(handles, [first, bad])
    with pytest.raises(FormatError, match=r"the bias must have the shape \(37,\)"):
        mixed_matmul(torch.randn(2, 192), MixedPacked.of(w), torch.randn(38), parse("int8/row"))
