"""The best of several recipes: chosen by what was measured, kept within the budget, said in the checkpoint, the same after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anybit import models, recipes
from anybit.errors import RecipeError
from anybit.recipes import auto, journal

from .test_pipeline import digest
from .test_transforming import Stopped

FEW = (("gptq", ()), ("gptq", ("rotate_inputs",)), ("rtn", ()))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "BUDGET", FEW)
    monkeypatch.setattr(auto, "SCORED", 200)


def base(text: Path, **fields: object) -> recipes.Recipe:
    return recipes.Recipe.parse({"calibration": {"text": str(text), "samples": 6, "length": 64}, **fields})


def test_the_best_of_the_sample_is_kept_and_the_checkpoint_says_what_was_tried(
    model: Path, text: Path, tmp_path: Path
) -> None:
    recipe = base(text, weights="int2/g16")
    chosen = auto.run(model, recipe, tmp_path / "out")
    kls = {each.candidate: each.kl for each in chosen.tried}
    assert list(kls) == ["gptq", "gptq, rotate_inputs", "rtn"] and min(kls, key=kls.get) == chosen.best
    said = json.loads((tmp_path / "out" / "anybit.json").read_text())["recipe"]
    assert [each["candidate"] for each in said["tried"]] == list(kls)
    assert said["method"] == chosen.best.split(",")[0]
    plain = next(each.recipe for each in auto.candidates(model, recipe, tmp_path / "x") if each.label == chosen.best)
    recipes.run(model, plain, tmp_path / "plain")
    names = [name for name in digest(tmp_path / "out") if name.endswith(".safetensors")]
    assert all(digest(tmp_path / "out")[name] == digest(tmp_path / "plain")[name] for name in names)
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"]


def test_a_budget_holds_and_what_does_not_fit_is_named(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = base(text, bits=3.6, choices=["int2/g16", "int4/g16"])
    listed = auto.candidates(model, recipe, tmp_path / "out")
    refused = {each.label: each.refused for each in listed if each.refused}
    assert set(refused) == {"nf4", "itq3_s"} and "more than the budget of 3.6" in str(refused["nf4"])
    chosen = auto.run(model, recipe, tmp_path / "out")
    assert chosen.result.bits_per_weight <= 3.6
    assert [each.refused is None for each in chosen.tried] == [True] * 3 + [False] * 2
    assert models.load(tmp_path / "out").bits_per_weight <= 3.6


@pytest.mark.parametrize("at", ["trying gptq, rotate_inputs", "trying rtn", "gptq"])
def test_a_killed_run_ends_in_the_same_bytes(at: str, model: Path, text: Path, tmp_path: Path) -> None:
    recipe = base(text, weights="int2/g16")
    auto.run(model, recipe, tmp_path / "whole")
    seen: list[str] = []

    def stop(share: float, what: str) -> None:
        seen.append(what)
        if what.startswith(at) and sum(each.startswith(at) for each in seen) == 4:
            raise Stopped

    with pytest.raises(Stopped):
        auto.run(model, recipe, tmp_path / "broken", progress=stop)
    assert journal.folder(tmp_path / "broken.trials").exists()
    again: list[str] = []
    auto.run(model, recipe, tmp_path / "broken", progress=lambda share, what: again.append(what))
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    assert not any(what.startswith("trying gptq: ") for what in again)  # its trial had been finished
    assert sorted(path.name for path in tmp_path.glob("broken*")) == ["broken"]


def test_transforms_and_options_of_the_recipe_are_those_of_every_candidate(
    model: Path, text: Path, tmp_path: Path
) -> None:
    recipe = base(text, weights="int4/g16", transforms=["permute"], options={"scale_rule": "absmax"})
    listed = auto.candidates(model, recipe, tmp_path / "out")
    assert [each.label for each in listed] == ["gptq, permute", "rtn, permute"]
    assert all(each.recipe.options == {"scale_rule": "absmax"} for each in listed)


def test_refusals_come_before_work(model: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"a budget of 1.1 bits a weight is below"):
        auto.run(model, base(text, bits=1.1), tmp_path / "out")
    with pytest.raises(RecipeError, match="gptq has no option 'alpha'"):
        auto.run(
            model,
            recipes.Recipe.model_construct(**{**dict(base(text, weights="int4/g16")), "options": {"alpha": 1}}),
            tmp_path / "out",
        )
    assert list(tmp_path.glob("out*")) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="exists"):
        auto.run(model, base(text, weights="int4/g16"), tmp_path / "out")


def test_nothing_tried_is_nothing_written_in_a_recipe(text: Path) -> None:
    recipe = base(text, weights="int4/g16")
    assert "tried" not in json.loads(recipe.to_json())
    full = recipe.model_copy(update={"tried": (recipes.recipe.Tried(candidate="gptq", bits_per_weight=4.5, kl=0.1),)})
    assert recipes.Recipe.parse(json.loads(full.to_json())) == full and full.fingerprint() != recipe.fingerprint()
