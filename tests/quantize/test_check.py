import pytest
import torch

from anybit.errors import RecipeError
from anybit.quantize import check
from anybit.quantize.statistics import Statistics


def test_accepts_what_is_finite_however_large() -> None:
    check.weight(torch.full((300, 300), 3e38), "w")
    check.weight(torch.full((3, 3), 65504.0, dtype=torch.float16), "w")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_finds_one_bad_value(bad: float) -> None:
    w = torch.randn(50, 50).bfloat16()
    w[49, 49] = bad
    with pytest.raises(RecipeError, match=r"w: the weight holds NaN or infinite"):
        check.weight(w, "w")


def test_opposite_infinities_do_not_cancel() -> None:
    with pytest.raises(RecipeError, match="infinite"):
        check.weight(torch.tensor([[float("inf"), -float("inf")]]), "w")


def test_statistics_must_be_there_and_fit() -> None:
    stats = Statistics(4)
    stats.add(torch.ones(1, 4))
    assert check.statistics(stats, 4, "gptq", "w") is stats
    for wrong, columns in ((None, 4), (Statistics(4), 4), (stats, 5)):
        with pytest.raises(RecipeError, match=r"^w: "):
            check.statistics(wrong, columns, "gptq", "w")
