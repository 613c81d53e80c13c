"""Lookups against float64 products and int32 ones; errors of coarse tables against figures computed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops.lookup import SIGNS, lookup_linear, row_tables
from anybit.tensors import QTensor, pack_bits, quantize

SPECS = (
    "int1/g128",
    "int2/g128",
    "uint3/g64+z",
    "int4/g128",
    "bipolar2/row",
    "ternary/row",
    "uint4/g128+z",
    "bipolar1/g64",
)


def problem(spec: str, m: int = 3, n: int = 20, k: int = 512) -> tuple[torch.Tensor, QTensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(spec) + m)
    x = torch.randn(m, k, generator=generator)
    w = quantize(torch.randn(n, k, generator=generator), TensorFormat.parse(spec))
    return x, w, x.double() @ w.dequantize().double().T


def nmse(y: torch.Tensor, true: torch.Tensor) -> float:
    return float((y.double() - true).square().sum() / true.square().sum())


def test_sixteen_signed_sums_of_four() -> None:
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    tables = row_tables(x, 4, "exact")
    for i in range(16):
        assert tables.values[0, 0, i] == sum(v if i >> t & 1 else -v for t, v in enumerate(x))
    assert (tables.values[0, 0] == -tables.values[0, 0, ::-1]).all() and SIGNS.shape == (16, 4)
    coarse = row_tables(x, 4, "int8")
    assert coarse.scale[0] == 1111 / 127 and coarse.values.max() == 127 and coarse.values.min() == -127
    assert (row_tables(np.zeros(8), 8, "int8").values == 0).all()


@pytest.mark.parametrize("spec", SPECS)
def test_exact_tables_are_the_product(spec: str) -> None:
    x, w, true = problem(spec)
    y = lookup_linear(x.reshape(3, 1, -1), w, "exact")
    assert y.shape == (3, 1, 20) and nmse(y[:, 0], true) < 1e-13


@pytest.mark.parametrize("spec", SPECS)
def test_int16_tables_of_integer_activations_lose_nothing(spec: str) -> None:
    x, w, _ = problem(spec)
    act = TensorFormat.parse("int8/row")
    given = quantize(x, act)
    codes = given.unpacked().to(torch.int8).long()
    assert codes.abs().max() <= 127
    exact = (codes.double() @ w.dequantize().double().T) * given.scales().double()
    y = lookup_linear(x, w, "int16", act)
    assert torch.allclose(y.double(), exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))
    assert torch.equal(lookup_linear(x, w, "exact", act), y)


def test_integer_sums_of_ternary_weights_are_those_of_int32() -> None:
    """Scale 1 on both sides, so that results are integers below 2^24 and float32 holds them."""
    codes = torch.randint(-127, 128, (4, 256))
    codes[:, 0] = 127
    w = torch.randint(-1, 2, (9, 256))
    w[:, 0] = 1
    q = quantize(w.float(), TensorFormat.parse("ternary/row"))
    assert torch.equal(q.dequantize(), w.float())
    y = lookup_linear(codes.float(), q, "int16", TensorFormat.parse("int8/row"))
    assert torch.equal(y, (codes.int() @ w.int().T).float())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_errors_of_coarse_tables_are_those_of_rounding(bits: int) -> None:
    """Weights with independent bits: a quad of variance 4 gets an error of scale^2 / 12 from its table, whatever the number of planes.

    A tree of 16 rounding averages adds (1 + 1/2 + 1/4 + 1/8) / 16 of variance at its root, 16^2 times that to its sum.
    """
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(16, 2048, generator=generator)
    codes = torch.randint(0, 2**bits, (128, 2048), generator=generator).to(torch.uint8)
    fmt = TensorFormat.parse(f"bipolar{bits}/row")
    w = QTensor(pack_bits(codes, bits), torch.ones(128, 1), None, None, (128, 2048), fmt)
    true = x.double() @ w.dequantize().double().T
    largest = x.reshape(16, 32, 16, 4).abs().sum(-1).max(-1).values
    table = float((largest / 127).square().mean()) / 12
    assert nmse(lookup_linear(x, w, "int8"), true) == pytest.approx(table / 4, rel=0.2)
    tree = 16**2 * (1 + 1 / 2 + 1 / 4 + 1 / 8) / 16 / 16 * float((largest / 127).square().mean())
    assert nmse(lookup_linear(x, w, "average"), true) == pytest.approx((table + tree) / 4, rel=0.2)


def test_the_bias_of_averages_is_taken_away() -> None:
    x, w, true = problem("int2/g128", m=8, n=64, k=4096)
    error = lookup_linear(x, w, "average").double() - true
    assert abs(float(error.mean())) < 0.3 * float(error.std())


def test_what_tables_do_not_multiply_is_refused() -> None:
    x, w, _ = problem("int4/g128")
    with pytest.raises(FormatError, match="tables are exact, int16, int8, average; got 'int4'"):
        lookup_linear(x, w, "int4")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="x has 511 columns, the weight 512"):
        lookup_linear(x[:, :-1], w)
    with pytest.raises(FormatError, match="which int16 tables need; got None"):
        lookup_linear(x, w, "int16")
    with pytest.raises(FormatError, match="divide k = 512 and groups of 128; got 96"):
        lookup_linear(x, w, group=96)
    with pytest.raises(FormatError, match="divide k = 512 and groups of 32; got 64"):
        lookup_linear(x, quantize(torch.randn(20, 512), TensorFormat.parse("int4/g32")))
    for spec in ("int5/g128", "nf4/g64", "int4/b4x128"):
        with pytest.raises(FormatError, match="weights of 1 to 4 bits with scales a row or narrower"):
            lookup_linear(x, quantize(torch.randn(20, 512), TensorFormat.parse(spec)))
