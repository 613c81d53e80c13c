"""Fewer bits of stored integers: the published formulas on every code, and errors known from another computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors import QTensor, pack_bits, quantize, snr_db
from anybit.tensors.bitplanes import from_qtensor
from anybit.tensors.slicing import at_bits


def all_codes(spec: str) -> QTensor:
    """Every code of an 8-bit element once, scale 1."""
    fmt = TensorFormat.parse(spec)
    codes = torch.arange(256).to(torch.uint8).reshape(1, 256)
    return QTensor(pack_bits(codes, 8), torch.ones(1, 1), None, None, (1, 256), fmt)


@pytest.mark.parametrize("bits", range(1, 8))
def test_second_rounding_of_every_code(bits: int) -> None:
    """w_l = clip(round(w_h / 2^d), -2^(l-1), 2^(l-1) - 1), ties upwards as a shift gives (arXiv 2502.01199)."""
    q = all_codes("int8/row")
    values = q.dequantize().numpy()
    cut = 8 - bits
    low = at_bits(q, bits)
    expected = np.clip(np.floor(values / 2**cut + 0.5), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * 2**cut
    assert str(low.format) == f"int{bits}/row" and np.array_equal(low.dequantize(), expected)
    assert torch.equal(q.at_bits(bits).codes, low.codes)


@pytest.mark.parametrize("bits", range(1, 8))
def test_slices_of_unsigned_codes(bits: int) -> None:
    """S(q, r) = clip((q >> (8 - r)) + ((q >> (7 - r)) & 1), 0, 2^r - 1) (arXiv 2602.03537): monotone, the largest stays the largest."""
    codes = np.arange(256)
    wanted = np.clip((codes >> 8 - bits) + (codes >> 7 - bits & 1), 0, 2**bits - 1)
    got = at_bits(all_codes("uint8/row"), bits).unpacked()[0].numpy()
    assert np.array_equal(got, wanted) and got[255] == 2**bits - 1 and (np.diff(got.astype(int)) >= 0).all()


@pytest.mark.parametrize("spec", ["int8/row", "uint8/row", "bipolar8/row"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_truncated_codes_are_the_top_bit_planes(spec: str, bits: int) -> None:
    q = all_codes(spec)
    low = at_bits(q, bits, "truncate")
    planes = from_qtensor(q).top(bits)
    assert torch.equal(planes.codes(), low.unpacked())
    assert torch.equal(planes.values().float() * 2 ** (8 - bits), low.dequantize())


@pytest.mark.parametrize("bits", range(1, 8))
def test_midpoints_are_half_a_step_above_what_truncating_leaves(bits: int) -> None:
    q = all_codes("int8/row")
    middle, floor = at_bits(q, bits, "midpoint"), at_bits(q, bits, "truncate")
    assert str(middle.format) == f"bipolar{bits}/row"
    assert torch.equal(middle.dequantize(), floor.dequantize() + 2.0 ** (8 - bits) / 2)


def test_bipolar_numbers_are_cut_to_their_nearest() -> None:
    q = all_codes("bipolar8/row")
    for bits in range(1, 8):
        grid = np.asarray(formats.get(f"bipolar{bits}").values) * 2 ** (8 - bits)
        values = q.dequantize().numpy()
        nearest = np.abs(values[..., None] - grid).min(-1)
        assert np.array_equal(np.abs(at_bits(q, bits).dequantize().numpy() - values), nearest)


def test_errors_against_direct_rounding() -> None:
    """Gaussian weights, absmax: rounding twice loses 19 % at 6 bits and 1 % at 4, truncating 2.7 and 3.6 times as much."""
    x = torch.randn(400, 1024, generator=torch.Generator().manual_seed(1))
    q = quantize(x, TensorFormat.parse("int8/tensor"))
    step8 = float(q.scales())
    for bits, twice, cut in ((6, 1.19, 2.7), (4, 1.01, 3.6)):
        step = step8 * 2 ** (8 - bits)
        top = 2 ** (bits - 1)
        direct = (x / step).round().clamp(-top, top - 1) * step
        error = lambda y: float((y - x).square().mean())  # noqa: E731
        assert error(at_bits(q, bits).dequantize()) / error(direct) == pytest.approx(twice, abs=0.03)
        truncated = at_bits(q, bits, "truncate").dequantize()
        assert error(truncated) / error(direct) == pytest.approx(cut, abs=0.2)
        midpoint = at_bits(q, bits, "midpoint").dequantize()
        assert error(midpoint) < error(truncated)


@pytest.mark.parametrize(
    "spec", ["int8/g32", "int8/g32:e8m0", "int8/row", "int8n/g64", "int8/g32:e4m3fn+t", "int8", "int8/b4x32"]
)
def test_every_way_of_scaling(spec: str) -> None:
    x = torch.randn(8, 96) * (40 if spec == "int8" else 1)
    q = quantize(x, TensorFormat.parse(spec))
    low = at_bits(q, 4)
    worst = q.dequantize().abs().max() * 15 / 127  # the largest code, 127, becomes 7 * 16; others err by 8 at most
    assert low.format.element.name == q.format.element.name.replace("8", "4") and low.shape == q.shape
    assert (low.dequantize() - q.dequantize()).abs().max() <= worst * 1.05
    assert snr_db(q.dequantize(), low.dequantize()) > 10
    assert at_bits(q, 8) is q


def test_zero_points_move_where_they_can() -> None:
    fmt = TensorFormat.parse("uint8/row+z")
    codes = torch.arange(256).to(torch.uint8).reshape(1, 256)
    q = QTensor(pack_bits(codes, 8), torch.ones(1, 1), torch.tensor([[128]], dtype=torch.uint8), None, (1, 256), fmt)
    low = at_bits(q, 3)
    assert low.zero is not None and int(low.zero) == 4
    assert torch.equal(low.dequantize(), (at_bits(all_codes("uint8/row"), 3).dequantize() - 128))
    odd = QTensor(q.codes, q.scale, torch.tensor([[100]], dtype=torch.uint8), None, (1, 256), fmt)
    with pytest.raises(FormatError, match="not all multiples of 32 that uint3 holds"):
        at_bits(odd, 3)
    with pytest.raises(FormatError, match="midpoints are for signed integers"):
        at_bits(q, 3, "midpoint")


def test_what_cannot_be_cut_is_refused() -> None:
    q = quantize(torch.randn(4, 32), TensorFormat.parse("int4/row"))
    with pytest.raises(FormatError, match="4 bits has no form of 5 bits; choose 1 to 4"):
        at_bits(q, 5)
    with pytest.raises(FormatError, match="round, truncate, midpoint; got 'floor'"):
        at_bits(q, 2, "floor")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="only integers and bipolar numbers"):
        at_bits(quantize(torch.randn(4, 32), TensorFormat.parse("e2m1/row")), 2)
    with pytest.raises(FormatError, match="int8n has no symmetric form of one bit"):
        at_bits(quantize(torch.randn(4, 32), TensorFormat.parse("int8n/row")), 1)
    with pytest.raises(FormatError, match="integers have 1 to 8 or 16 bits; got 12"):
        at_bits(quantize(torch.randn(4, 32), TensorFormat.parse("int16/row")), 12)
    large = quantize(torch.randn(4, 32) * 1e6, TensorFormat.parse("int8/g32"))
    with pytest.raises(FormatError, match="scales of fp16 do not hold 128 times"):
        at_bits(large, 1)
