"""Two levels against exact rational arithmetic, and how much the second is worth."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import ResidualFormat, TensorFormat
from anybit.tensors import ResidualTensor, quantize, quantize_residual, relative_error, round_residual

SPECS = ["int4/g8~int4/g8", "nvfp4~nvfp4", "mxfp4~int4/g16", "nf4/g16~e2m1/row", "int4/g16+z~int2/g8", "bf16~bf16"]


def numbers(rows=3, cols=40, seed=0):
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))


def exact_values(q):
    """Every value a level can take at each place, as fractions: [rows][cols] -> list."""
    scales, zeros = q.scales().tolist(), None if q.zeros() is None else q.zeros().tolist()
    wide = q.format.block[1] or q.col_count
    tall = q.format.block[0] or q.row_count
    levels = [Fraction(float(v)) for v in q.format.element.values]

    def at(i, j):
        a, b = (0, 0) if q.scale is None else (i // tall, j // wide)
        zero = Fraction(0) if zeros is None else Fraction(zeros[a][b])
        return [(v - zero) * Fraction(scales[a][b]) for v in levels]

    return at


@pytest.mark.parametrize("spec", SPECS)
def test_each_level_takes_the_nearest_value_of_what_is_left(spec):
    x = numbers()
    q = quantize_residual(x, ResidualFormat.parse(spec))
    assert str(q.format) == str(ResidualFormat.parse(spec)) and q.shape == (3, 40)
    assert q.nbytes == q.format.nbytes((3, 40))
    first, second, got = q.main.dequantize(), q.rest.dequantize(), q.dequantize(torch.float64)
    if spec == "bf16~bf16":  # 65 536 values each: the oracle is torch's own cast
        assert torch.equal(first, x.bfloat16().float()) and torch.equal(second, (x - first).bfloat16().float())
        assert ((got - x.double()).abs() <= 2.0**-16 * x.abs().double()).all()
        return
    at, then = exact_values(q.main), exact_values(q.rest)
    for i in range(3):
        for j in range(0, 40, 3):
            want = Fraction(float(x[i, j]))
            left = want - Fraction(float(first[i, j]))
            slack = abs(want) * Fraction(1, 2**22)  # divisions by the scale are in float32
            assert abs(left) <= min(abs(want - v) for v in at(i, j)) + slack
            assert abs(left - Fraction(float(second[i, j]))) <= min(abs(left - v) for v in then(i, j)) + slack
            assert float(got[i, j]) == float(first[i, j]) + float(second[i, j])


def test_the_second_level_is_worth_its_bits():
    x = numbers(32, 256)
    for spec, most in (("int4/g64~int4/g64", 0.08), ("nvfp4~nvfp4", 0.12), ("int4/row~int8/row", 0.006)):
        fmt = ResidualFormat.parse(spec)
        alone = relative_error(x, quantize(x, fmt.main).dequantize())
        assert relative_error(x, round_residual(x, fmt)) < most * alone
    # Two digits of 4 bits, each with its own scale, are as good as 7 bits, and two of FP4 better than FP8.
    two = relative_error(x, round_residual(x, ResidualFormat.parse("int4/g64~int4/g64")))
    assert two < relative_error(x, quantize(x, TensorFormat.parse("int7/g64")).dequantize())
    arc = relative_error(x, round_residual(x, ResidualFormat.parse("nvfp4~nvfp4")))
    assert arc < relative_error(x, quantize(x, TensorFormat.parse("mxfp8")).dequantize())


def test_stochastic_levels_draw_different_numbers_and_have_no_bias():
    x = torch.full((1, 20_000), 0.3)
    x[0, 0] = 1.0
    fmt = ResidualFormat.parse("int2n/row~int2n/row")
    got = quantize_residual(x, fmt, mode="stochastic", key=5)
    assert torch.equal(got.dequantize(), quantize_residual(x, fmt, mode="stochastic", key=5).dequantize())
    assert abs(got.dequantize()[0, 1:].mean() - 0.3) < 4 * got.dequantize()[0, 1:].std() / 20_000**0.5


def test_views_zeros_and_refusals():
    x = numbers(6, 32)
    q = quantize_residual(x, ResidualFormat.parse("int4/g16~int4/g16"), scale_rule="mse")
    assert torch.equal(q.rows(2, 5).dequantize(), q.dequantize()[2:5])
    assert torch.equal(q.to("cpu").dequantize(torch.bfloat16), q.dequantize().bfloat16())
    assert not round_residual(torch.zeros(2, 32), ResidualFormat.parse("nvfp4~nvfp4")).any()
    assert round_residual(torch.tensor([torch.inf, 1.0]), ResidualFormat.parse("bf16~bf16")).isfinite().all()
    with pytest.raises(FormatError, match="one shape"):
        ResidualTensor(q.main, q.rest.rows(0, 3))
    with pytest.raises(FormatError, match="NaN"):
        quantize_residual(x * torch.nan, q.format)


def test_what_is_no_residual_format_is_refused():
    with pytest.raises(FormatError, match=r"expected a ResidualFormat, as .* gives; got 'nvfp4~nvfp4'"):
        quantize_residual(torch.ones(2, 16), "nvfp4~nvfp4")
