import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, table
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
