"""Roundings relaxed as AdaRound has them: where they start, their gradients, that they end at codes, and the family's other choices."""

import pytest
import torch
from tests.quantize.test_gptq import problem

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, gradient_ptq, rtn, table
from anybit.quantize.learned import RelaxedWeight
from anybit.quantize.reconstruct import Settings, _Weights, descend, reconstruct
from anybit.quantize.statistics import Statistics

SPECS = ["int3/g8", "int4/g8+z", "nf4/g16", "int2/row", "mxfp4", "nvfp4", "int3/g8:e4m3fn+t", "int4/b4x16", "e4m3fn"]
ADAROUND = {"start": "rtn", "unit": "layer", "variable": "relaxed", "scales": False, "rate": 0.01}


@pytest.mark.parametrize("spec", SPECS)
def test_relaxed_weights_start_at_the_given_codes_and_as_near_to_the_weight_as_they_may(spec: str) -> None:
    w = torch.randn(8, 32)
    start = tensors.quantize(w, TensorFormat.parse(spec), "mse")
    learned = RelaxedWeight(w, start)
    assert torch.equal(learned.harden().dequantize(), start.dequantize())
    between = learned.value().detach()
    assert bool(((between - w).abs() <= (start.dequantize() - w).abs() + 2e-4 * w.abs().max()).all())


def test_gradients_are_those_of_the_relaxed_function() -> None:
    torch.manual_seed(0)
    w = torch.randn(4, 8)
    learned = RelaxedWeight(w, tensors.quantize(w, TensorFormat.parse("int4/g8:fp32")))
    pull = torch.randn(4, 8)
    inside = ((learned._way() > 0.1) & (learned._way() < 0.9)).nonzero().tolist()  # h is clipped elsewhere
    assert len(inside) > 5

    def loss(share: float) -> torch.Tensor:
        penalty = learned.penalty(share)
        assert penalty is not None
        return (learned.value() * pull).sum() + penalty

    for share in (0.3, 1.0):
        learned.offset.grad = None
        loss(share).backward()
        for i, j in inside[:6]:
            values = []
            for step in (-1e-2, 1e-2):
                learned.offset.data[i, j] += step
                values.append(float(loss(share).detach()))
                learned.offset.data[i, j] -= step
            assert float(learned.offset.grad[i, j]) == pytest.approx((values[1] - values[0]) / 2e-2, rel=0.02, abs=2e-3)


def test_the_penalty_waits_and_is_nothing_at_codes() -> None:
    torch.manual_seed(0)
    w = torch.randn(4, 32)
    learned = RelaxedWeight(w, tensors.quantize(w, TensorFormat.parse("int4/row:fp32")))
    assert learned.penalty(0.1) is None
    open_ = [float(learned.penalty(share).detach()) for share in (0.2, 0.5, 1.0)]
    assert open_ == sorted(open_, reverse=True) and 0 < open_[-1] < 1
    learned.offset.data = torch.sign(learned.offset.data) * 9
    assert float(learned.penalty(1.0)) == 0.0


def test_relaxed_roundings_end_at_codes() -> None:
    """Rounding what is still open costs no more than 1 % of the relaxed error once the penalty has done its work."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(32, 32, generator=g) / 6
    x, w = torch.randn(4, 100, 32, generator=g) @ mix, torch.randn(8, 32, generator=g)
    start = tensors.quantize(w, TensorFormat.parse("int3/g32"))
    settings = Settings(steps=1500, rate=0.03, scales=False, variable="relaxed", penalty=30.0, batch=4, held_out=0.0)

    def targets(windows):
        return (x[list(windows)] @ w.T).flatten(0, 1)

    learner = _Weights({"w": (w, start)}, lambda v, windows: (x[list(windows)] @ v["w"].T).flatten(0, 1), settings)
    descend(learner, {"w": start}, targets, 4, settings, penalty=learner.penalty)
    with torch.no_grad():
        relaxed, hard, first = (
            float((y - targets(range(4))).square().sum())
            for y in (
                learner.forward(range(4)),
                learner.outputs(learner.state())(range(4)),
                learner.outputs({"w": start})(range(4)),
            )
        )
    assert hard <= 1.01 * relaxed and hard < 0.6 * first


@pytest.mark.parametrize("loss", ["mse", "l1", "cosine"])
def test_relaxed_blocks_err_less_than_where_they_start(loss: str) -> None:
    g = torch.Generator().manual_seed(1)
    mix = torch.randn(32, 32, generator=g) / 6
    x, w = torch.randn(8, 100, 32, generator=g) @ mix, torch.randn(8, 32, generator=g)
    start = tensors.quantize(w, TensorFormat.parse("int2/g32"), "mse")
    done = reconstruct(
        {"w": (w, start)},
        lambda v, windows: (x[list(windows)] @ v["w"].T).flatten(0, 1),
        lambda windows: (x[list(windows)] @ w.T).flatten(0, 1),
        8,
        Settings(steps=200, rate=0.01, variable="relaxed", loss=loss),  # type: ignore[arg-type]
    )
    assert done.kept and done.after < 0.9 * done.before


@pytest.mark.parametrize("spec", ["int3/g64", "int2/g64+z", "nf4/g64"])
def test_layers_learned_alone_err_less_than_their_start(spec: str) -> None:
    """AdaRound against rounding, and free variables against GPTQ; then the block leaves them as they are."""
    fmt = TensorFormat.parse(spec)
    weight, stats = problem(32, 64, 2, 400)
    weight = weight.float()
    near = rtn.quantize(weight, fmt, stats).report.relative_error
    best = gptq.quantize(weight, fmt, stats).report.relative_error
    ada = gradient_ptq.quantize(weight, fmt, stats, gradient_ptq.Options(**{**ADAROUND, "steps": 300}))
    free = gradient_ptq.quantize(weight, fmt, stats, gradient_ptq.Options(unit="layer", steps=300))
    assert ada.report.relative_error < 0.9 * near and free.report.relative_error <= 1.0001 * best
    assert ada.report.details["layer_error_after"] < ada.report.details["layer_error_before"]
    x = torch.randn(4, 10, 64)
    done = gradient_ptq.refine(
        {"w": (weight, free.qtensor)},
        lambda v, windows: x[list(windows)] @ v["w"].T,
        lambda windows: x[list(windows)] @ weight.T,
        4,
        gradient_ptq.Options(unit="layer"),
        "block",
    )
    assert torch.equal(done.weights["w"].codes, free.qtensor.codes) and done.before == done.after > 0


def test_dead_columns_do_not_move_layers_learned_alone() -> None:
    weight, stats = problem(16, 64, 3, 400)
    hessian = stats.hessian.clone()
    hessian[5] = hessian[:, 5] = 0
    dead = Statistics.from_hessian(hessian, stats.tokens)
    other = weight.clone()
    other[:, 5] += 0.01
    fmt = TensorFormat.parse("int3/g64")
    options = gradient_ptq.Options(unit="layer", steps=50, scale_rule="absmax")
    a, b = (gradient_ptq.quantize(w.float(), fmt, dead, options) for w in (weight, other))
    assert torch.equal(a.qtensor.codes, b.qtensor.codes) and not a.qtensor.dequantize()[:, 5].any()


def test_the_family_by_name_of_its_options() -> None:
    method = table.get("gradient_ptq")
    assert method.parse(ADAROUND).variable == "relaxed"
    for given, what in (
        ({"unit": "stage"}, "unit is block or layer"),
        ({"variable": "gumbel"}, "variable is one of free, relaxed"),
        ({"loss": "huber"}, "loss is one of mse, l1, cosine, kl"),
        ({"penalty": -1.0}, "penalty is 0 or more"),
        ({"unit": "layer", "act": "int8/row"}, "second moments"),
        ({"drop": 1.5}, "between 0 and 1"),
    ):
        with pytest.raises(RecipeError, match=what):
            method.parse(given)
    with pytest.raises(RecipeError, match="needs calibration"):
        gradient_ptq.quantize(torch.randn(4, 64), TensorFormat.parse("int3/g64"), None, method.parse(ADAROUND))
