"""Options from mappings: types of the defaults, allowed values, and the checks of the dataclass itself."""

from dataclasses import dataclass

import pytest

from anybit.errors import RecipeError
from anybit.options import parse


@dataclass(frozen=True)
class Options:
    rate: float = 0.5
    steps: int = 3
    rule: str = "a"
    on: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps are 0 or more; got {self.steps}")


def test_values_are_taken_and_defaults_kept() -> None:
    assert parse("x", Options, {"rate": 1, "rule": "b"}, {"rule": ("a", "b")}) == Options(rate=1, rule="b")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"speed": 1}, "x has no option 'speed'; it has rate, steps, rule, on"),
        ({"steps": 1.5}, "x: option steps takes a int"),
        ({"steps": True}, "x: option steps takes a int"),
        ({"on": 1}, "x: option on takes a bool"),
        ({"rule": "c"}, "x: option rule is one of a, b, got 'c'"),
        ({"steps": -1}, "x: steps are 0 or more; got -1"),
    ],
)
def test_others_are_refused_in_one_sentence(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        parse("x", Options, given, {"rule": ("a", "b")})
