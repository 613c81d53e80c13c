"""What must hold for scales.py: the rules by hand, and storage at its limits."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat, get
from anybit.tensors import block_scales, encode, quantize
from anybit.tensors.scales import load_scale, store_scale

parse = TensorFormat.parse


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("spec", "divisor"), [
    ("int8/row", 127), ("int4/row", 7), ("int3/row", 3), ("int4n/row", 7), ("e2m1/row", 6), ("e4m3fn/row", 448), ("nf4/row", 1),
    ("ternary/row", 1), ("bipolar2/row", 3), ("int16/row", 32767),
])  # fmt: skip
def test_absmax_maps_the_largest_magnitude_to_the_largest_value(spec: str, divisor: int) -> None:
    x = gaussian(6, 50)
    scale, zero, tensor_scale = block_scales(x, parse(spec))
    assert zero is None and tensor_scale is None
    np.testing.assert_array_equal(scale[:, 0].numpy(), x.abs().amax(1).numpy() / np.float32(divisor))


def test_two_bits_put_the_signed_extreme_on_the_lowest_value() -> None:
    x = torch.tensor([[0.5, -4.0, 1.0, 2.0], [0.5, 4.0, 1.0, -2.0]])
    scale, _, _ = block_scales(x, parse("int2/row"))
    assert scale.tolist() == [[2.0], [-2.0]]
    assert quantize(x, parse("int2/row")).dequantize().tolist() == [
        [0, -4, 0, 2],
        [0, 4, 0, -2],
    ]  # 0.25 and 0.5: ties to even
    assert block_scales(x, parse("int1/row"))[0].tolist() == [[4.0], [-4.0]]
    # A scale without a sign cannot mirror the grid.
    assert block_scales(x, parse("int2/row:e8m0"))[0].tolist() == [[4.0], [4.0]]
    assert block_scales(x, parse("int1/row:e8m0"))[0].tolist() == [[4.0], [2.0]]


def test_unsigned_elements_use_the_positive_range() -> None:
    x = torch.tensor([[-9.0, 1.5, 3.0], [-1.0, -2.0, -3.0]])
    assert block_scales(x, parse("uint4/row"))[0].tolist() == [[pytest.approx(3 / 15)], [0.0]]
    assert quantize(x, parse("uint4/row")).dequantize()[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (-3.0, 3.0)])
@pytest.mark.parametrize("element", ["int4", "uint4", "int8", "int4n"])
def test_zero_points_spread_the_range_over_all_codes(low: float, high: float, element: str) -> None:
    x = torch.tensor([[low, high, (low + high) / 2]])
    fmt = parse(f"{element}/row+z")
    (scale,), (zero,), _ = block_scales(x, fmt)  # type: ignore[misc]
    low, high = min(low, 0), max(high, 0)
    assert float(scale) == pytest.approx((high - low) / (fmt.element.max - fmt.element.min), rel=1e-6)
    assert float(zero) == round(fmt.element.min - low / float(scale))
    # The ends are off by at most the rounding of the zero point and of the code: half a step each.
    wrong = (quantize(x, fmt).dequantize() - x).abs().max()
    assert float(wrong) <= float(scale) * (1 + 1e-5)
    assert quantize(torch.zeros(1, 3), fmt).dequantize().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("element", "emax"), [("e2m1", 2), ("e3m2", 4), ("e2m3", 2), ("e4m3fn", 8), ("e5m2", 15), ("int8", 6)]
)
@pytest.mark.parametrize("absmax", [1.0, 1.99, 2.0, 6.0, 7.5, 1e-3, 3e30, 2.0**-126, 1e-40])
def test_e8m0_scales_follow_the_microscaling_specification(element: str, emax: int, absmax: float) -> None:
    # OCP MX v1.0, section 6.3: X = 2^(floor(log2 max|V|) - emax); E8M0 has no exponent below -127.
    x = torch.tensor([[absmax, -absmax / 3, 0.0]])
    scale, _, _ = block_scales(x, parse(f"{element}/g32:e8m0"))
    wanted = math.frexp(float(np.float32(absmax)))[1] - 1 - emax
    assert float(scale) == 2.0 ** max(wanted, -127)


def test_nvfp4_has_two_levels() -> None:
    x = gaussian(4, 64) * 3e-4
    q = quantize(x, parse("nvfp4"))
    assert q.tensor_scale is not None and q.scale is not None
    np.testing.assert_allclose(float(q.tensor_scale), float(x.abs().max()) / (448 * 6), rtol=2.0**-22)
    wanted = (x.reshape(4, 4, 16).abs().amax(-1).numpy() / q.tensor_scale.numpy() / np.float32(6)).astype(
        ml_dtypes.float8_e4m3fn
    )
    assert np.array_equal(q.scale.numpy(), wanted.view(np.uint8))
    assert int(q.scale.max()) == 0x7E  # 448
    zero = quantize(torch.zeros(2, 16), parse("nvfp4"))
    assert float(zero.tensor_scale) == 1 and not zero.dequantize().any()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fp16", "bf16", "fp32", "e4m3fn", "e8m0", "e5m2"])
def test_storage_keeps_within_the_format_and_never_makes_a_zero(name: str) -> None:
    fmt = get(name)
    raw = torch.tensor([1e38, 70000.0, 1.0, 3e-3, 1e-9, 1e-44])
    stored = load_scale(store_scale(raw, fmt), fmt)
    assert stored.max() <= fmt.max and (stored > 0).all()
    assert bool((stored.diff() <= 0).all())
    # Within the range the step is half a unit in the last place (below the normal numbers half of the smallest).
    middle = (raw < fmt.max) & (raw > fmt.min_positive)
    allowed = torch.maximum(raw * (0.5 if name == "e8m0" else fmt.eps / 2), torch.tensor(fmt.min_positive / 2))
    assert ((stored - raw).abs() <= allowed)[middle].all()
    again = store_scale(stored, fmt)
    assert torch.equal(again, store_scale(raw, fmt))
    if fmt.min < 0:
        assert torch.equal(load_scale(store_scale(-raw, fmt), fmt), -stored)
        assert float(load_scale(store_scale(torch.zeros(1), fmt), fmt)) == 0
    else:
        assert float(load_scale(store_scale(torch.zeros(1), fmt), fmt)) == fmt.min_positive


def test_fp16_scales_that_overflow_saturate_and_those_that_vanish_do_not() -> None:
    big = torch.tensor([[1e7, -2e7, 5e5]])
    q = quantize(big, parse("int4/g4"))
    assert q.scales().tolist() == [[65504]]
    assert q.dequantize().tolist() == [[7 * 65504, -8 * 65504, 7 * 65504]]
    small = torch.tensor([[1e-8, -3e-8, 5e-9]])
    q = quantize(small, parse("int4/g4"))
    assert q.scales().tolist() == [[2.0**-24]]
    assert q.dequantize().abs().max() <= 2.0**-24 and torch.isfinite(q.dequantize()).all()


@pytest.mark.parametrize(
    "spec", ["int4/g8", "int2/g8", "int3/g8+z", "nf4/g8", "bipolar2/g8", "mxfp4", "nvfp4", "int8/tensor", "e4m3fn/row"]
)
@pytest.mark.parametrize("rule", ["absmax", "mse"])
def test_blocks_of_zeros_stay_zero(spec: str, rule: str) -> None:
    x = gaussian(6, 32)
    x[2] = 0
    x[4, 8:24] = 0
    y = quantize(x, parse(spec), rule).dequantize()  # type: ignore[arg-type]
    assert torch.isfinite(y).all() and not y[2].any()
    assert not quantize(torch.zeros(3, 8), parse(spec), rule).dequantize().any()  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("spec", ["int4/g8", "e4m3fn/tensor", "int8/row+z", "nvfp4", "mxfp8"])
def test_numbers_without_a_scale_are_refused(value: float, spec: str) -> None:
    x = gaussian(5, 16)
    x[3, 7] = value
    kind = "NaN" if value != value else "infinity"
    with pytest.raises(FormatError, match=f"holds {kind}, for which"):
        block_scales(x, parse(spec))


def test_unscaled_formats_and_unknown_rules_are_refused() -> None:
    with pytest.raises(FormatError, match="bf16 is unscaled"):
        block_scales(gaussian(2, 2), parse("bf16"))
    with pytest.raises(FormatError, match="unknown scale rule 'max'; known: absmax, mse"):
        block_scales(gaussian(2, 2), parse("int4/row"), "max")  # type: ignore[arg-type]


def test_given_scales_are_rounded_to_their_format() -> None:
    q = encode(torch.tensor([[1.0, 2.0]]), parse("int4/g2"), torch.tensor([[0.3]]))
    assert q.scales().tolist() == [[float(np.float16(0.3))]]


@pytest.mark.parametrize("name", ["posit8_0", "posit8_1", "posit8_2", "posit5_0"])
def test_posits_are_scaled_to_where_they_are_dense(name: str) -> None:
    fmt = TensorFormat.parse(f"{name}/g128")
    x = torch.randn(200, 128, generator=torch.Generator().manual_seed(0))
    wrong = (quantize(x, fmt).dequantize() - x).square().sum()
    others = []
    for power in range(-2, 7):
        scale = x.abs().amax(1, keepdim=True) / 2.0**power
        others.append((encode(x, fmt, scale).dequantize() - x).square().sum())
    assert wrong < 1.3 * min(others) and wrong < 0.5 * others[-1]
