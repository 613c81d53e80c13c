"""Scores are those of the evaluation module, and nothing is computed twice."""

from pathlib import Path

import pytest
from tests.recipes.conftest import write_model

from anybit import models
from anybit.models import TorchExecutor
from anybit.models.evaluation import divergence, perplexity
from anybit.reproduce.subject import Subject


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    import anybit.reproduce.subject as module

    text = "once upon a time there was a fox who had a house " * 30
    (tmp_path / "text.txt").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", 64)
        return Subject(write_model(tmp_path / "model"), tmp_path / "text.txt", text, scored=300, samples=4)


def test_a_tried_recipe_scores_as_the_model_it_makes(subject: Subject, tmp_path: Path) -> None:
    recipe = {"weights": "int3/g16", "calibration": {"length": 64}}
    made = subject.quantized(recipe, tmp_path / "work")
    executor = TorchExecutor(made.plan, made.weights)
    original = models.load(subject.folder)
    far = divergence(executor, TorchExecutor(original.plan, original.weights), subject.windows)
    found = subject.tried(recipe, tmp_path / "work")
    assert found["kl"] == pytest.approx(far.kl, rel=1e-6) and found["bits"] == made.bits_per_weight
    assert found["perplexity"] == pytest.approx(perplexity(executor, subject.windows).perplexity, rel=1e-6)
    assert not made.path.exists()
    same = subject.score(original.plan, original.weights)
    assert abs(same["kl"]) < 1e-9 and same["agreement"] == 1 and same["perplexity"] == subject.perplexity()


def test_a_model_made_before_is_known_by_what_the_text_says(subject: Subject, tmp_path: Path) -> None:
    recipe = {"weights": "int3/g16", "calibration": {"length": 64}}
    made = subject.quantized(recipe, tmp_path / "work")
    text = subject.calibration.read_text()
    subject.calibration = tmp_path / "moved.txt"
    subject.calibration.write_text(text)
    assert subject.quantized(recipe, tmp_path / "work").path == made.path
    subject.calibration.write_text(text + "and a hat")
    assert subject.quantized(recipe, tmp_path / "work").path != made.path


def test_the_calibration_windows_are_those_of_a_recipe(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    import anybit.reproduce.subject as module
    from anybit.recipes.job import check
    from anybit.recipes.recipe import Recipe

    monkeypatch.setattr(module, "WINDOW", 64)
    how = {"text": str(subject.calibration), "samples": subject.samples, "length": 64}
    recipe = Recipe.parse({"weights": "int3/g16", "method": "gptq", "calibration": how})
    used = check(subject.folder, recipe, subject.folder.parent / "out").windows
    assert used is not None and [w.tolist() for w in subject.calibration_windows()] == [w.tolist() for w in used.ids]
