from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from anybit.errors import RecipeError
from anybit.quantize import gptq, table
from anybit.recipes.recipe import DEFAULT_CHOICES, FINE_CHOICES, Recipe


@pytest.mark.parametrize(
    "data",
    [
        {"weights": "int4/g128"},
        {"weights": "mxfp4", "method": "rtn", "options": {"scale_rule": "absmax"}},
        {"bits": 3.5, "choices": ["int2/g64", "int4/g64", "keep"], "cost": "rtn", "kv": "int8/row"},
        {
            "weights": "int3/g64+z",
            "overrides": [{"pattern": "*.down_proj.weight", "weights": "int8/row"}],
            "lm_head": "keep",
        },
    ],
)
def test_round_trip_through_json_and_yaml(data: dict[str, object], tmp_path: Path) -> None:
    recipe = Recipe.parse(data)
    path = tmp_path / "recipe.json"
    path.write_text(recipe.to_json())
    assert Recipe.read(path) == recipe
    assert Recipe.read(path).fingerprint() == recipe.fingerprint()


def test_yaml_and_equivalent_spellings_have_one_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("weights: mxfp4  # the alias\nmethod: rtn\ncalibration:\n  samples: 3\n")
    written = Recipe.read(path)
    assert written.weights == "e2m1/g32:e8m0"
    assert (
        written.fingerprint()
        == Recipe.parse({"weights": "e2m1/g32:e8m0", "method": "rtn", "calibration": {"samples": 3}}).fingerprint()
    )
    assert written.fingerprint() != Recipe.parse({"weights": "mxfp4", "method": "rtn"}).fingerprint()


def test_a_fingerprint_knows_defaults_and_not_where_a_text_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"weights": "int4/g64", "transforms": ["smooth"], "calibration": {"text": "a.txt"}}
    first = Recipe.parse(given).fingerprint()
    assert first == Recipe.parse({**given, "calibration": {"text": "b/c.txt"}}).fingerprint()
    spelled = {"options": {"damping": 0.01}, "transforms": [{"name": "smooth", "options": {"alpha": 0.5}}]}
    assert first == Recipe.parse({**given, **spelled}).fingerprint()
    for other in ({"options": {"damping": 0.02}}, {"transforms": []}, {"calibration": {"samples": 3}}):
        assert first != Recipe.parse({**given, **other}).fingerprint()

    @dataclass(frozen=True)
    class Later(gptq.Options):
        damping: float = 0.02

    monkeypatch.setitem(table.METHODS, "gptq", replace(table.METHODS["gptq"], options=Later))
    assert first != Recipe.parse(given).fingerprint()


def test_first_matching_override_counts() -> None:
    recipe = Recipe.parse(
        {
            "weights": "int4/g32",
            "overrides": [{"pattern": "*.0.*", "weights": "keep"}, {"pattern": "*", "weights": "int8/row"}],
        }
    )
    assert recipe.override("layers.0.q") == "keep"
    assert recipe.override("layers.1.q") == "int8/row"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "either weights"),
        ({"weights": "int4/g128", "bits": 3}, "either weights"),
        ({"bits": 0}, "bits must be between 1 and 16 a weight, got 0"),
        ({"bits": 17}, "bits must be between 1 and 16 a weight, got 17"),
        ({"bits": float("nan")}, "bits must be between"),
        ({"bits": "many"}, "^recipe: bits: "),
        ({"weights": "int9/g128"}, "int9"),
        ({"weights": "int0/g128"}, "int0"),
        ({"weights": "int17/g128"}, "int17"),
        ({"weights": "int4"}, "'int4' has no scale.*int4/g128 or int4/row"),
        ({"weights": "nf4"}, "no scale"),
        ({"weights": "int4/g128", "metod": "rtn"}, "unknown field 'metod'; fields are weights"),
        ({"weights": "int4/g128", "method": "magic"}, "'magic'; known: rtn, gptq"),
        ({"weights": "int4/g128", "options": {"damp": 1}}, "no option 'damp'"),
        ({"bits": 3, "choices": []}, "at least one format"),
        ({"bits": 3, "choices": ["int4/g64", "int44/g64"]}, "int44"),
        ({"weights": "int4/g128", "calibration": {"samples": 0}}, "calibration.samples"),
        ({"weights": "int4/g128", "calibration": {"size": 0}}, "calibration.size"),
        ({"weights": "int4/g128", "overrides": [{"pattern": "*", "weights": "x"}]}, "'x'"),
        ({"weights": "int4/g128", "kv": "int4q"}, "int4q"),
        ("int4/g128", "mapping"),
    ],
)
def test_refusals_are_one_sentence(data: object, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence) as caught:
        Recipe.parse(data)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.read(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("weights: [int4")
    with pytest.raises(RecipeError, match=r"broken\.yaml: not a YAML") as caught:
        Recipe.read(broken)
    assert "\n" not in str(caught.value)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        Recipe.read(broken)


def test_a_budget_brings_its_choices() -> None:
    assert Recipe.parse({"bits": 6}).choices == DEFAULT_CHOICES
    assert Recipe.parse({"bits": 6.1}).choices == FINE_CHOICES
    assert Recipe.parse({"bits": 6.1, "choices": ["int2/g64", "int8/row"]}).choices == ("int2/g64", "int8/row")
    again = Recipe.parse(Recipe.parse({"bits": 8}).model_dump(mode="json"))
    assert again.choices == FINE_CHOICES and again.fingerprint() == Recipe.parse({"bits": 8.0}).fingerprint()
