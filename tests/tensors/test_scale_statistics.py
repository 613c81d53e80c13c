"""What must hold for scale_statistics.py. Oracles: Monte Carlo, the published errors of Quartet, both scales of 4/6 tried by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat, get
from anybit.tensors import block_scales, encode, quantize
from anybit.tensors.scale_statistics import gaussian_error, gaussian_scale, second_ratio

parse = TensorFormat.parse
NORMAL = torch.randn(2048, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()


@pytest.mark.parametrize("name", ["e2m1", "int4", "nf4", "ternary", "posit8_0"])
def test_the_error_of_normal_numbers_is_the_one_measured(name: str) -> None:
    fmt = get(name)
    s = gaussian_scale(fmt)
    x = NORMAL.numpy().astype(np.float64)
    if not name.startswith("posit"):  # which do not round to the nearest value
        measured = np.mean((x - s * fmt.round(x / s)) ** 2)
        assert measured == pytest.approx(gaussian_error(np.unique(fmt.values), s), rel=0.02)
    for other in (0.9 * s, 1.1 * s):
        assert gaussian_error(np.unique(fmt.values), other) > gaussian_error(np.unique(fmt.values), s)


def test_best_scales_of_ternary_and_sign_are_known() -> None:
    # Max, "Quantizing for minimum distortion" (1960), table I: two levels at 0.7980; three at 1.224, error 0.1902.
    assert gaussian_scale(get("bipolar1")) == pytest.approx(np.sqrt(2 / np.pi), abs=1e-3)
    assert gaussian_scale(get("ternary")) == pytest.approx(1.224, abs=1e-3)
    assert gaussian_error(np.array([-1.0, 0, 1]), 1.224) == pytest.approx(0.1902, abs=1e-4)


@pytest.mark.parametrize(("power", "error"), [("four_thirds", 1.33e-2), ("floor", 2.24e-2)])
def test_errors_of_quartet(power: str, error: float) -> None:
    # Quartet, table 2, gives 1.32e-2 for QuEST in MXFP4. Its code's floor of log2 gives 1.7 times that. A random factor for each
    # group removes the luck of where the root mean square lies between powers of two.
    factor = torch.exp2(torch.rand(2048, 8, generator=torch.Generator().manual_seed(1))).repeat_interleave(32, 1)
    x = NORMAL * factor
    back = quantize(x, parse("mxfp4"), "gaussian", power=power).dequantize()  # type: ignore[arg-type]
    assert float(((back - x) / factor).square().mean()) == pytest.approx(error, rel=0.05)


def test_power_rounding_of_absmax() -> None:
    x = torch.tensor([[6.0, 1], [6.01, 1], [8, 1], [9, 1], [11.9, 1], [12, 1]])
    fmt = parse("e2m1/row:e8m0")
    got = {
        p: block_scales(x, fmt, "absmax", power=p)[0][:, 0].tolist()
        for p in ("floor", "ceil", "nearest", "four_thirds")
    }  # type: ignore[arg-type]
    assert got["floor"] == [1, 1, 1, 1, 1, 2]
    assert got["ceil"] == [1, 2, 2, 2, 2, 2]
    assert got["nearest"] == [1, 1, 1, 2, 2, 2]
    assert got["four_thirds"] == [1, 1, 2, 2, 2, 2]
    with pytest.raises(FormatError, match="for e8m0 scales under absmax and gaussian"):
        block_scales(x, parse("e2m1/row"), "absmax", power="ceil")
    with pytest.raises(FormatError, match="unknown rounding to powers of two 'up'"):
        block_scales(x, fmt, "absmax", power="up")  # type: ignore[arg-type]


def test_four_over_six_takes_the_better_of_both() -> None:
    fmt, x = parse("nvfp4"), NORMAL[:64]
    scale, _, tensor_scale = block_scales(x, fmt, "four_over_six")
    assert tensor_scale is not None
    # Both choices for every block, by hand: its largest magnitude becomes 6, or 4.
    absmax = x.reshape(64, 16, 16).abs().amax(2) / tensor_scale
    wrong = []
    for top in (6.0, 4.0):
        stored = get("e4m3fn").round(absmax / top)
        back = encode(x, fmt, stored, tensor_scale=tensor_scale).dequantize()
        wrong.append((back - x).square().reshape(64, 16, 16).sum(2))
    got = (encode(x, fmt, scale, tensor_scale=tensor_scale).dequantize() - x).square().reshape(64, 16, 16).sum(2)
    assert torch.allclose(got, torch.minimum(*wrong), rtol=1e-6)
    share = float((wrong[1] < wrong[0]).float().mean())
    assert 0.2 < share < 0.8 and got.sum() < 0.95 * wrong[0].sum()
    assert scale.max() <= 448


def test_second_ratio() -> None:
    assert second_ratio(parse("nvfp4")) == 1.5 and second_ratio(parse("int4/row")) == 7 / 6
    with pytest.raises(FormatError, match="two positive values"):
        second_ratio(parse("ternary/row"))
