"""The clip search against enumeration of every group's ranges."""

import pytest
import torch
from tests.quantize.test_gptq import problem

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import awq, rtn


@pytest.mark.parametrize("rule", ["absmax", "mse"])
@pytest.mark.parametrize("spec", ["int3/g16", "int4/g16+z", "int2/row", "int3/b4x16"])
def test_every_group_takes_the_range_of_least_output_error(spec: str, rule: str) -> None:
    weight, stats = problem(rows=12, columns=40, seed=2)
    w, fmt = weight.float(), TensorFormat.parse(spec)
    got = awq.quantize(w, fmt, stats, awq.Options(scale_rule=rule)).qtensor  # type: ignore[arg-type]
    h = stats.hessian.float()
    tall, wide = fmt.block[0], fmt.block[1] or 40
    candidates = []
    for i in range(10):
        clipped = w.clone()
        for a in range(0, 12, tall):
            for b in range(0, 40, wide):
                block = clipped[a : a + tall, b : b + wide]
                top = float(block.abs().max()) * (1 - i * 0.045)
                block.clamp_(-top, top)
        candidates.append(tensors.quantize(clipped, fmt, rule, importance=stats.second_moment.float()).dequantize())  # type: ignore[arg-type]
    for a in range(0, 12, tall):
        for b in range(0, 40, wide):
            where = slice(a, a + tall), slice(b, b + wide)
            hh = h[b : b + wide, b : b + wide]
            losses = [float((((w - c)[where] @ hh) * (w - c)[where]).sum()) for c in candidates]
            mine = (w - got.dequantize())[where]
            assert float(((mine @ hh) * mine).sum()) <= min(losses) * (1 + 1e-4) + 1e-9


def test_clipping_never_errs_more_than_not_clipping_within_groups_and_can_be_off() -> None:
    weight, stats = problem(rows=32, columns=64, seed=5)
    fmt = TensorFormat.parse("int3/g64")  # one group: the group's error is the whole
    clipped = awq.quantize(weight, fmt, stats, awq.Options(scale_rule="absmax"))
    plain = awq.quantize(weight, fmt, stats, awq.Options(scale_rule="absmax", clip=False))
    assert clipped.report.relative_error < plain.report.relative_error
    assert torch.equal(plain.qtensor.codes, tensors.quantize(weight.float(), fmt).codes)
    assert plain.report.relative_error == pytest.approx(rtn.relative_error(weight, plain.qtensor, stats))
    assert clipped.report.details["mean_range"] < 1


def test_refusals() -> None:
    weight, _ = problem()
    with pytest.raises(RecipeError, match="awq needs calibration"):
        awq.quantize(weight, TensorFormat.parse("int4/g16"), None)
    with pytest.raises(ValueError, match="share in"):
        awq.Options(least=0.0)
