"""Every rule of scales through both quantizers, and which is no worse than which."""

from __future__ import annotations

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, rtn, table
from anybit.quantize.rule import POWERS, power_for
from anybit.quantize.statistics import Statistics
from anybit.tensors import SCALE_RULES, block_scales


def problem(spec):
    torch.manual_seed(3)
    fmt, w = TensorFormat.parse(spec), torch.randn(16, 64) * torch.exp(torch.randn(16, 1))
    stats = Statistics(64)
    stats.add(torch.randn(200, 64) * torch.exp(torch.randn(64)))
    return fmt, w, stats


@pytest.mark.parametrize("spec", ["int4/g32", "nvfp4", "mxfp4", "nf4/g16", "e2m1/g32"])
@pytest.mark.parametrize("rule", SCALE_RULES)
def test_every_rule_quantizes(spec, rule):
    fmt, w, stats = problem(spec)
    for method in (rtn, gptq):
        options = table.get(method.__name__.rsplit(".", 1)[1]).parse({"scale_rule": rule})
        done = method.quantize(w, fmt, stats, options)
        assert 0 < done.report.relative_error < 0.1
        importance = stats.second_moment.float() if method is rtn else stats.hessian.diagonal().float()
        expected = block_scales(w, fmt, rule, importance)[0]
        stored = done.qtensor.scales() / (1 if done.qtensor.tensor_scale is None else done.qtensor.tensor_scale)
        assert torch.allclose(stored, expected, rtol=1e-3)


@pytest.mark.parametrize("spec", ["int4/g32", "int3/g16", "nvfp4", "mxfp4", "nf4/g16", "e2m1/g32", "int2/g64"])
def test_exact_is_never_worse_than_absmax_in_weighted_error(spec):
    fmt, w, stats = problem(spec)
    weights = stats.second_moment.float()
    errors = {
        rule: ((rtn.quantize(w, fmt, stats, rtn.Options(rule)).qtensor.dequantize() - w).square() * weights).sum()
        for rule in ("absmax", "mse", "exact")
    }
    # The scale of the whole tensor is the same, so this holds block by block; 1e-5 for the order of sums.
    assert errors["exact"] <= errors["mse"] * (1 + 1e-5) and errors["exact"] < errors["absmax"]


def test_powers_of_two_are_rounded_as_asked_where_scales_are_such():
    fmt, w, stats = problem("mxfp4")
    for method in (rtn, gptq):
        found = {p: method.quantize(w, fmt, stats, method.Options(scale_rule="absmax", power=p)) for p in POWERS}
        floor, ceil = found["floor"].qtensor.scales(), found["ceil"].qtensor.scales()
        assert ((ceil == floor) | (ceil == 2 * floor)).all() and (ceil > floor).any()
        for between in ("nearest", "four_thirds"):
            scale = found[between].qtensor.scales()
            assert ((scale == floor) | (scale == ceil)).all()
    assert power_for("ceil", TensorFormat.parse("int4/g32")) is None
    other, w, stats = problem("int4/g32")
    assert rtn.quantize(w, other, stats, rtn.Options("absmax", power="ceil")).qtensor.dequantize().isfinite().all()


def test_what_makes_no_sense_is_refused():
    fmt, w, stats = problem("int4/g32+z")
    for rule in ("exact", "four_over_six", "gaussian"):
        with pytest.raises(FormatError, match="zero points"):
            rtn.quantize(w, fmt, stats, rtn.Options(rule))
