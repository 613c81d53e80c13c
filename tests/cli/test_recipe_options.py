"""Options make the recipe that a file of the same content makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from anybit.cli.recipe_options import recipe
from anybit.errors import RecipeError
from anybit.recipes import Recipe


def made(file=None, weights=None, bits=None, method=None, embeddings=None, calibration=None, samples=None, length=None):
    return recipe(file, weights, bits, method, embeddings, calibration, samples, length)


def test_options():
    expected = Recipe.parse(
        {"weights": "int4/g128", "method": "rtn", "calibration": {"samples": 3, "length": 99, "text": "a.txt"}}
    )
    assert made(weights="int4/g128", method="rtn", samples=3, length=99, calibration=Path("a.txt")) == expected
    assert made(bits=3.5) == Recipe.parse({"bits": 3.5})


def test_file_with_calibration_options(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text('{"bits": 3.5, "calibration": {"samples": 7, "seed": 5}}')
    found = made(file=file, samples=9)
    assert found == Recipe.parse({"bits": 3.5, "calibration": {"samples": 9, "seed": 5}})


def test_scale_rule(tmp_path):
    found = recipe(None, "int4/g128", None, None, None, None, None, None, "exact")
    assert found == Recipe.parse({"weights": "int4/g128", "options": {"scale_rule": "exact"}})
    with pytest.raises(RecipeError, match="one of absmax, mse, exact"):
        recipe(None, "int4/g128", None, None, None, None, None, None, "best")
    file = tmp_path / "recipe.yaml"
    file.write_text("bits: 4")
    with pytest.raises(RecipeError, match="--scale-rule and --recipe cannot stand together"):
        recipe(file, None, None, None, None, None, None, None, "exact")


@pytest.mark.parametrize("option", ["weights", "bits", "method", "embeddings"])
def test_file_and_option_contradict(option, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("bits: 4")
    with pytest.raises(RecipeError, match=f"--{option} and --recipe cannot stand together"):
        made(file=file, **{option: 3.0 if option == "bits" else "rtn"})


def test_nothing_or_both():
    with pytest.raises(RecipeError, match="say what the weights become"):
        made(method="rtn")
    with pytest.raises(RecipeError, match="cannot stand together"):
        made(weights="int4/row", bits=4)
