from pathlib import Path

from anybit import recipes
from anybit.recipes.recipe import Recipe


def test_says_what_will_happen(model: Path, tmp_path: Path) -> None:
    plan = recipes.preflight(model, Recipe.parse({"weights": "int4/g32", "method": "rtn"}), tmp_path / "out")
    by_name = {tensor.name: tensor for tensor in plan.tensors}
    assert by_name["model.layers.0.self_attn.q_proj.weight"].format == "int4/g32"
    assert by_name["model.layers.0.self_attn.q_proj.weight"].bytes == 32 * 16 + 32 * 2
    assert by_name["lm_head.weight"].bytes == 260 * 32 + 260 * 4
    assert plan.predicted_bytes == sum(t.bytes for t in plan.tensors) + 2 * 5 * 32
    assert plan.bits_per_weight == 8 * plan.predicted_bytes / plan.parameters
    assert plan.source_bytes == 2 * plan.parameters
    assert plan.calibration is None and plan.calibration_tokens == 0 and plan.choices == () and plan.finished == 0
    assert plan.disk_needed > 2 * (plan.predicted_bytes - 320) and plan.disk_free > 0
    notes = " | ".join(plan.notes)
    assert (
        "model.layers.1.mlp.down_proj.weight: 80 columns in groups of 32: the last group of 16 is short (3 groups)"
        in notes
    )
    assert "lm_head.weight (lm head) goes to int8/row, the default" in notes
    assert not (tmp_path / "out").exists()


def test_a_budget_is_spread_and_calibration_is_described(model: Path, text: Path, tmp_path: Path) -> None:
    data = {
        "bits": 5,
        "choices": ["int2/g16", "int8/g16"],
        "calibration": {"text": str(text), "samples": 100, "length": 64},
    }
    plan = recipes.preflight(model, Recipe.parse(data), tmp_path / "out")
    assert {tensor.format for tensor in plan.tensors} == {None}
    assert plan.choices == ("int2/g16", "int8/g16")
    assert 4.99 < plan.bits_per_weight <= 5
    assert sum(tensor.bytes for tensor in plan.tensors) <= plan.predicted_bytes
    assert plan.calibration == text and plan.calibration_tokens == 64 * (3000 // 63)
    assert any("enough for 47 of 100 windows" in note for note in plan.notes)


def test_few_tokens_and_formats_given_are_noted(model: Path, text: Path, tmp_path: Path) -> None:
    data = {
        "weights": "int4/g16",
        "embeddings": "int8/g16",
        "lm_head": "keep",
        "calibration": {"text": str(text), "samples": 2, "length": 64},
    }
    plan = recipes.preflight(model, Recipe.parse(data), tmp_path / "out")
    assert any("128 calibration tokens are few for layers with 80 inputs" in note for note in plan.notes)
    assert not any("default" in note for note in plan.notes)


def test_a_budget_that_allows_more_is_noted(model: Path, text: Path, tmp_path: Path) -> None:
    data = {"bits": 12, "choices": ["int2/g16", "int8/g16"], "calibration": {"text": str(text)}}
    plan = recipes.preflight(model, Recipe.parse(data), tmp_path / "out")
    assert [note for note in plan.notes if "allows more than the finest choices take, 9.0" in note]
    assert plan.bits_per_weight < 9.1 and sum(tensor.bytes for tensor in plan.tensors) <= plan.predicted_bytes
    within = recipes.preflight(model, Recipe.parse(data | {"bits": 5}), tmp_path / "out")
    assert not [note for note in within.notes if "allows more" in note]
