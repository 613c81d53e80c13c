import numpy as np
import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import rtn
from anybit.quantize.statistics import Statistics

SPECS = [
    "int4/g32",
    "int2/g16+z",
    "int8/row",
    "nf4/g32",
    "mxfp4",
    "nvfp4",
    "ternary/tensor",
    "bipolar2/g32",
    "int4/b8x16",
    "e4m3fn/tensor",
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_weight_takes_the_nearest_value(spec: str) -> None:
    """Whatever the scales: no other code of the format is nearer, by enumeration of all codes in float64."""
    fmt = TensorFormat.parse(spec)
    w = torch.from_numpy(np.random.default_rng(0).standard_normal((16, 72)).astype(np.float32))
    done = rtn.quantize(w, fmt)
    q = done.qtensor
    got = q.dequantize().double()
    blocks = (fmt.block[0] or 16, fmt.block[1] or 72)
    scale = q.scales().double().repeat_interleave(blocks[0], 0)[:16].repeat_interleave(blocks[1], 1)[:, :72]
    zeros = q.zeros()
    zero = (
        0.0
        if zeros is None
        else zeros.double().repeat_interleave(blocks[0], 0)[:16].repeat_interleave(blocks[1], 1)[:, :72]
    )
    levels = torch.from_numpy(np.array(fmt.element.values))
    nearest = ((levels[:, None, None] - zero) * scale - w.double()).abs().amin(0)
    torch.testing.assert_close((got - w).abs(), nearest, rtol=1e-5, atol=1e-6)
    relative = float((w - q.dequantize()).square().sum() / w.square().sum())
    assert done.report.relative_error == pytest.approx(relative, rel=1e-5)
    assert done.report.format == str(fmt)


def test_searched_scales_are_no_worse_than_absmax() -> None:
    w = torch.randn(32, 128)
    for spec in ("int2/g64", "int3/g64", "int4/g64", "e2m1/row"):
        errors = [
            rtn.quantize(w, TensorFormat.parse(spec), options=rtn.Options(r)).report.relative_error
            for r in ("absmax", "mse")
        ]
        assert errors[1] <= errors[0]


def test_importance_lowers_the_weighted_error() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 64) * torch.exp(torch.randn(64))
    stats = Statistics(64)
    stats.add(x)
    w, fmt = torch.randn(64, 64), TensorFormat.parse("int3/g32")

    def error(options: rtn.Options) -> float:
        d = w - rtn.quantize(w, fmt, stats, options).qtensor.dequantize()
        return float((d.square() * stats.second_moment).sum())

    assert error(rtn.Options(importance=True)) < error(rtn.Options(importance=False))


def test_report_with_statistics_is_the_output_error() -> None:
    x, w = torch.randn(300, 24), torch.randn(700, 24)
    stats = Statistics(24)
    stats.add(x)
    done = rtn.quantize(w, TensorFormat.parse("int3/g8"), stats)
    v = done.qtensor.dequantize()
    assert done.report.relative_error == pytest.approx(
        float((x @ (w - v).T).square().sum() / (x @ w.T).square().sum()), rel=1e-4
    )


def test_squared_output_is_that_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = torch.randn(50, 7, dtype=torch.float64), torch.randn(30, 7, dtype=torch.float64)
    stats = Statistics(7, dtype=torch.float64)
    stats.add(x)
    monkeypatch.setattr(rtn, "ROWS", 8)
    assert rtn.squared_output(w, stats) == pytest.approx(2 * float((x @ w.T).square().sum()) / 50, rel=1e-12)


def test_zeros_stay_zero_and_input_is_unchanged() -> None:
    w = torch.zeros(4, 40)
    done = rtn.quantize(w, TensorFormat.parse("int4/g16"))
    assert done.report.relative_error == 0 and not done.qtensor.dequantize().any()
    w = torch.randn(4, 40, dtype=torch.bfloat16)
    before = w.clone()
    rtn.quantize(w, TensorFormat.parse("int4/g16"))
    assert torch.equal(w, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refusals(bad: float) -> None:
    w, fmt = torch.randn(4, 16), TensorFormat.parse("int4/g16")
    w[2, 3] = bad
    with pytest.raises(RecipeError, match=r"blk\.w: .*NaN or infinite"):
        rtn.quantize(w, fmt, name="blk.w")
    with pytest.raises(RecipeError, match="matrix"):
        rtn.quantize(torch.randn(4), fmt)
    with pytest.raises(RecipeError, match="floating"):
        rtn.quantize(torch.ones(4, 4, dtype=torch.int32), fmt)
    with pytest.raises(RecipeError, match="16 columns, the calibration inputs 3"):
        stats = Statistics(3)
        stats.add(torch.ones(1, 3))
        rtn.quantize(torch.randn(4, 16), fmt, stats)
