import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, table
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics


@pytest.mark.parametrize("name", table.METHODS)
def test_every_method_quantizes_with_its_default_options(name: str) -> None:
    method = table.get(name)
    stats = Statistics(32)
    stats.add(torch.randn(100, 32))
    done = method.quantize(
        torch.randn(8, 32), TensorFormat.parse(method.weights or "int4/g16"), stats, method.parse({})
    )
    assert done.report.method == name == method.name
    assert method.paper and method.needs in ("weights", "inputs", "hessian")


def _run(name: str, weight: torch.Tensor, stats: Statistics | None) -> Quantized:
    method = table.get(name)
    fmt = TensorFormat.parse(method.weights or "int4/g16")
    return method.quantize(weight, fmt, stats, method.parse({}), name="blk.w")


def _inputs(seed: int = 0, tokens: int = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, 32, generator=generator) @ torch.randn(32, 32, generator=generator)


def _gathered(x: torch.Tensor) -> Statistics:
    stats = Statistics(32, name="blk.w")
    stats.add(x)
    return stats


WEIGHT = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", table.METHODS)
def test_every_method_refuses_a_damaged_weight(name: str, bad: float) -> None:
    weight = WEIGHT.clone()
    weight[3, 5] = bad
    with pytest.raises(RecipeError, match=r"blk\.w: the weight holds NaN or infinite"):
        _run(name, weight, _gathered(_inputs()))


@pytest.mark.parametrize("name", [name for name, method in table.METHODS.items() if method.needs != "weights"])
def test_methods_that_look_at_inputs_refuse_none_and_damaged_ones(name: str) -> None:
    for stats in (None, Statistics(32, name="blk.w")):
        with pytest.raises(RecipeError, match=r"blk\.w: .* needs calibration inputs, and there are none"):
            _run(name, WEIGHT, stats)
    with pytest.raises(RecipeError, match="32 columns, the calibration inputs 16"):
        narrow = Statistics(16)
        narrow.add(torch.ones(3, 16))
        _run(name, WEIGHT, narrow)
    with pytest.raises(RecipeError, match=r"blk\.w.*NaN"):
        x = _inputs()
        x[7, 9] = float("nan")
        _run(name, WEIGHT, _gathered(x))
    hessian = _gathered(_inputs()).hessian.clone()
    hessian[4, 4] = float("nan")
    if table.get(name).needs == "inputs":
        return  # no Hessian is factored, and `Statistics.add` has refused what would spoil the averages
    with pytest.raises(RecipeError, match="NaN"):
        _run(name, WEIGHT, Statistics.from_hessian(hessian, 100, name="blk.w"))


@pytest.mark.parametrize("name", table.METHODS)
def test_every_method_takes_dead_columns_and_fewer_tokens_than_columns(name: str) -> None:
    """Columns that no input drives, and a Hessian of rank 5: outputs on those inputs are no worse than twice plain rounding's."""
    x = _inputs(tokens=5)
    x[:, [2, 17]] = 0
    done = _run(name, WEIGHT, _gathered(x))
    values = done.qtensor.dequantize()
    assert bool(torch.isfinite(values).all())
    rounded = _run("rtn", WEIGHT, _gathered(x)).qtensor if table.get(name).weights is None else None
    if rounded is not None:
        wrong, plain = (float(((WEIGHT - v) @ x.T).norm()) for v in (values, rounded.dequantize()))
        assert wrong <= 2 * plain
    assert float(((WEIGHT - values) @ x.T).norm()) < 0.5 * float((WEIGHT @ x.T).norm())
    if table.get(name).needs == "hessian":
        assert done.report.details["dead_columns"] == 2


@pytest.mark.parametrize("name", [name for name, method in table.METHODS.items() if method.needs == "hessian"])
def test_methods_that_factor_say_what_is_not_positive_definite(name: str) -> None:
    """A little below zero is dealt with by more damping, which is reported; far below it is refused."""
    hessian = _gathered(_inputs()).hessian.clone()
    values, vectors = torch.linalg.eigh(hessian)
    values[0] = -0.05 * float(values.mean())
    done = _run(name, WEIGHT, Statistics.from_hessian((vectors * values) @ vectors.T, 100))
    assert done.report.details["escalations"] == 1
    assert bool(torch.isfinite(done.qtensor.dequantize()).all())
    hessian[0, 1] = hessian[1, 0] = 20 * hessian.diagonal().mean()
    with pytest.raises(RecipeError, match=r"blk\.w: .*not positive definite"):
        _run(name, WEIGHT, Statistics.from_hessian(hessian, 100, name="blk.w"))


def test_options_are_parsed() -> None:
    assert table.get("gptq").parse({"damping": 1, "act_order": False}) == gptq.Options(damping=1, act_order=False)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"dampening": 0.1}, "no option 'dampening'; it has damping"),
        ({"damping": "much"}, "damping takes a float"),
        ({"block": True}, "block takes a int"),
        ({"block": 1.5}, "block takes a int"),
        ({"scale_rule": "best"}, "one of absmax, mse, exact, four_over_six, gaussian"),
        ({"power": "up"}, "one of '', floor"),
        ({"groups": "none"}, "one of static, dynamic"),
    ],
)
def test_bad_options_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        table.get("gptq").parse(given)


def test_unknown_method() -> None:
    with pytest.raises(RecipeError, match=r"'best'; known: rtn, gptq, gradient_ptq"):
        table.get("best")
