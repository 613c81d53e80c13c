import numpy as np
import pytest
import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, obs, rtn
from anybit.quantize.statistics import Statistics

SPECS = [
    "int4/g16",
    "int3/g24+z",
    "int2/row",
    "int8/tensor",
    "nf4/g16",
    "mxfp4",
    "nvfp4",
    "ternary/g16",
    "bipolar2/g32",
    "int4/b4x16",
    "e4m3fn",
]


def problem(rows: int = 24, columns: int = 64, seed: int = 0, tokens: int = 300) -> tuple[Tensor, Statistics]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, columns)) @ (rng.standard_normal((columns, columns)) / np.sqrt(columns))
    stats = Statistics(columns, dtype=torch.float64)
    stats.add(torch.from_numpy(x * np.exp(rng.normal(0, 0.7, columns))))
    return torch.from_numpy(rng.standard_normal((rows, columns))), stats


def slow(weight: np.ndarray, hessian: np.ndarray, order: np.ndarray, q, fmt: TensorFormat) -> np.ndarray:
    """Optimal Brain Quantization with the explicit inverse; rounding by enumeration of all values, with q's own
    scales.
    """
    rows, columns = weight.shape
    tall, wide = fmt.block[0] or rows, fmt.block[1] or columns
    scales = q.scales().double().numpy()
    zeros = None if q.zeros() is None else q.zeros().double().numpy()
    levels = np.unique(fmt.element.values)
    w, inverse, out = weight.copy(), np.linalg.inv(hessian), np.empty_like(weight)
    for i in order:
        block = np.arange(rows) // tall
        scale = scales[block, i // wide]
        zero = 0.0 if zeros is None else zeros[block, i // wide]
        candidates = (levels[:, None] - zero) * scale
        out[:, i] = candidates[np.abs(candidates - w[:, i]).argmin(0), np.arange(rows)]
        w -= np.outer((w[:, i] - out[:, i]) / inverse[i, i], inverse[i])
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, :] = inverse[:, i] = 0.0
        inverse[i, i] = 1.0
    return out


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("act_order", [True, False])
def test_same_codes_as_the_slow_reference(spec: str, act_order: bool) -> None:
    fmt = TensorFormat.parse(spec)
    weight, stats = problem()
    done = gptq.quantize(weight, fmt, stats, gptq.Options(act_order=act_order, block=40))
    hessian = stats.hessian.numpy()
    order = np.argsort(-np.diag(hessian), kind="stable") if act_order else np.arange(64)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(64)
    expected = slow(weight.numpy(), damped, order, done.qtensor, fmt)
    # Equal codes mean equal values up to the float32 product of code and scale.
    np.testing.assert_allclose(done.qtensor.dequantize().double().numpy(), expected, rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("spec", ["int4/g64", "int3/g64", "int2/g64", "nf4/g64", "mxfp4", "int3/g32+z"])
@pytest.mark.parametrize("options", [gptq.Options(), gptq.Options(act_order=False, groups="dynamic")])
def test_beats_rounding_in_output_error(spec: str, options: gptq.Options) -> None:
    fmt = TensorFormat.parse(spec)
    for seed in range(3):
        weight, stats = problem(64, 128, seed, 600)
        plain = rtn.quantize(weight, fmt, stats).report.relative_error
        assert gptq.quantize(weight.float(), fmt, stats, options).report.relative_error < plain


@pytest.mark.parametrize("spec", ["int3/g64", "int2/g64+z", "nf4/g64", "nvfp4", "e4m3fn"])
def test_sweeps_lower_the_output_error_further(spec: str) -> None:
    fmt = TensorFormat.parse(spec)
    for seed in range(3):
        weight, stats = problem(64, 128, seed, 600)
        once = gptq.quantize(weight, fmt, stats).report.relative_error
        swept = gptq.quantize(weight, fmt, stats, gptq.Options(sweeps=4))
        assert swept.report.relative_error < once
        assert swept.unrounded is not None and swept.qtensor.format == fmt


@pytest.mark.parametrize("sweeps", [0, 2])
def test_report_holds_the_weighted_error_and_the_damping(sweeps: int) -> None:
    weight, stats = problem()
    done = gptq.quantize(weight, TensorFormat.parse("int4/g16"), stats, gptq.Options(sweeps=sweeps))
    d = weight - done.qtensor.dequantize().double()
    expected = torch.einsum("ni,ij,nj->", d, stats.hessian, d) / torch.einsum(
        "ni,ij,nj->", weight, stats.hessian, weight
    )
    assert done.report.relative_error == pytest.approx(float(expected), rel=1e-4)
    assert done.report.details == {"damping": 0.01, "escalations": 0, "dead_columns": 0}


@pytest.mark.parametrize("sweeps", [0, 2])
def test_dead_columns_become_zero_and_change_nothing_else(sweeps: int) -> None:
    weight, stats = problem()
    hessian = stats.hessian.clone()
    hessian[5] = hessian[:, 5] = 0
    dead = Statistics.from_hessian(hessian, stats.tokens)
    other = weight.clone()
    other[:, 5] = 1000.0
    fmt = TensorFormat.parse("int4/g16")
    a, b = (gptq.quantize(w, fmt, dead, gptq.Options(sweeps=sweeps)) for w in (weight, other))
    assert a.report.details["dead_columns"] == 1
    assert not a.qtensor.dequantize()[:, 5].any()
    assert torch.equal(a.qtensor.codes, b.qtensor.codes) and torch.equal(a.qtensor.scale, b.qtensor.scale)


def test_permuting_inputs_permutes_the_codes() -> None:
    weight, stats = problem()
    shuffle = torch.from_numpy(np.random.default_rng(1).permutation(64))
    moved = Statistics.from_hessian(stats.hessian[shuffle][:, shuffle], stats.tokens)
    fmt = TensorFormat.parse("int4/row")
    plain = gptq.quantize(weight, fmt, stats).qtensor
    other = gptq.quantize(weight[:, shuffle], fmt, moved).qtensor
    assert torch.equal(other.unpacked(), plain.unpacked()[:, shuffle])


def test_dynamic_groups_fit_compensated_weights() -> None:
    """The first group's scales are the static ones; later groups differ because their weights have moved."""
    weight, stats = problem(32, 64)
    fmt = TensorFormat.parse("int2/g16")
    static = gptq.quantize(weight, fmt, stats, gptq.Options(act_order=False)).qtensor
    dynamic = gptq.quantize(weight, fmt, stats, gptq.Options(act_order=False, groups="dynamic", block=24)).qtensor
    assert torch.equal(static.scales()[:, 0], dynamic.scales()[:, 0])
    assert not torch.equal(static.scales()[:, 1:], dynamic.scales()[:, 1:])


def test_last_group_may_be_short() -> None:
    weight, stats = problem(8, 50)
    for options in (gptq.Options(), gptq.Options(act_order=False, groups="dynamic")):
        done = gptq.quantize(weight, TensorFormat.parse("int4/g16"), stats, options)
        assert done.qtensor.scales().shape == (8, 4)
        assert done.report.relative_error < 0.02


def test_a_given_factor_is_used_as_if_computed() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int3/g16")
    factor = obs.factorize(stats.hessian)
    assert torch.equal(
        gptq.quantize(weight, fmt, stats, factor=factor).qtensor.codes, gptq.quantize(weight, fmt, stats).qtensor.codes
    )


def test_inputs_are_unchanged() -> None:
    weight, stats = problem()
    w, h = weight.clone(), stats.hessian.clone()
    gptq.quantize(weight, TensorFormat.parse("int4/g16"), stats)
    assert torch.equal(w, weight) and torch.equal(h, stats.hessian)


def test_refusals() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int4/g16")
    with pytest.raises(RecipeError, match="needs calibration inputs"):
        gptq.quantize(weight, fmt, None)
    with pytest.raises(RecipeError, match="needs calibration inputs"):
        gptq.quantize(weight, fmt, Statistics(64))
    with pytest.raises(RecipeError, match="dynamic groups need act_order off"):
        gptq.quantize(weight, fmt, stats, gptq.Options(groups="dynamic"))
    with pytest.raises(RecipeError, match="static groups"):
        gptq.quantize(weight, TensorFormat.parse("nvfp4"), stats, gptq.Options(groups="dynamic", act_order=False))
    with pytest.raises(RecipeError, match="scales are fixed"):
        gptq.quantize(weight, fmt, stats, gptq.Options(groups="dynamic", act_order=False, sweeps=1))
    with pytest.raises(RecipeError, match="sweeps are 0 or more"):
        gptq.quantize(weight, fmt, stats, gptq.Options(sweeps=-1))
    with pytest.raises(RecipeError, match="block"):
        gptq.quantize(weight, fmt, stats, gptq.Options(block=0))
    broken = Statistics.from_hessian(torch.eye(64) - 40 * torch.ones(64, 64).fill_diagonal_(0), 10)
    with pytest.raises(RecipeError, match=r"q_proj: .*not positive definite"):
        gptq.quantize(weight, fmt, broken, name="q_proj")
    bad = weight.clone()
    bad[0, 0] = float("nan")
    with pytest.raises(RecipeError, match="NaN"):
        gptq.quantize(bad, fmt, stats)
