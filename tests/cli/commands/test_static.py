"""Static scales on the command line: made by quantize, shown, taken by eval and generate, refused with one sentence."""

from __future__ import annotations

import json

import pytest

STATIC = ("--weights", "int8/row", "--method", "rtn", "--activations", "int8/static", "--samples", 4, "--length", 64)


@pytest.fixture
def made(tiny_folder, tmp_path, anybit):
    done = anybit("quantize", tiny_folder, tmp_path / "out", *STATIC, "--json")
    assert done.code == 0, done.err
    assert done.json["plan"]["activations"] == "int8/static" and done.json["plan"]["calibration"]
    assert done.json["result"]["bytes"] == done.json["plan"]["predicted_bytes"]
    return tmp_path / "out"


def test_the_plan_names_them(tiny_folder, tmp_path, anybit):
    done = anybit("quantize", tiny_folder, tmp_path / "out", *STATIC, "--dry-run")
    assert "int8/static, scales from the calibration text" in done.out
    plain = anybit("quantize", tiny_folder, tmp_path / "out", *STATIC[:4], "--dry-run")
    assert "activations" not in plain.out


@pytest.mark.parametrize("executor", ["native", "torch", "transformers"])
def test_eval_takes_them_unless_told_otherwise(made, anybit, executor):
    found = anybit("eval", made, "--tokens", 200, "--executor", executor, "--json")
    assert found.code == 0, found.err
    assert found.json["act"] == "int8/static"
    exact = anybit("eval", made, "--tokens", 200, "--executor", "torch", "--act", "none", "--json")
    assert exact.json["act"] == "none"
    assert found.json["nll"] == pytest.approx(exact.json["nll"], abs=0.01)
    assert found.json["nll"] != exact.json["nll"]


def test_people_see_which(made, anybit):
    assert "activations int8/static" in anybit("eval", made, "--tokens", 60).out
    assert "activations int8/row" in anybit("eval", made, "--tokens", 60, "--act", "int8/row").out
    assert anybit("generate", made, "--prompt", "the cat", "--max-tokens", 3, "--act", "int8/static").code == 0


def test_the_help_says_what_there_is(anybit):
    for command in ("eval", "generate"):
        assert "int8/static" in anybit(command, "--help").out
    assert "--activations" in anybit("quantize", "--help").out


def refused(done) -> str:
    assert done.code == 2
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    return done.err


def test_refusals(tiny, made, tmp_path, anybit):
    assert "has no scale for int8/static activations" in refused(anybit("eval", tiny, "--act", "int8/static"))
    assert "int8/statik" in refused(anybit("eval", made, "--act", "int8/statik"))
    assert "native executor takes int8/static" in refused(anybit("eval", made, "--act", "e4m3fn/static"))
    assert "only int8/static" in refused(anybit("eval", made, "--act", "int4/static", "--executor", "torch"))
    (tiny / "calibration.txt").unlink()
    assert "give a text like" in refused(anybit("quantize", tiny, tmp_path / "other", *STATIC))
    assert "signed integers" in refused(
        anybit("quantize", tiny, tmp_path / "other", *STATIC[:4], "--activations", "nf4/static")
    )
    found_later = anybit("quantize", tiny, tmp_path / "other", *STATIC[:4], "--activations", "int8/row")
    assert "give it to eval and generate as --act" in refused(found_later)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("weights: int8/row\n")
    clash = anybit("quantize", tiny, tmp_path / "other", "--recipe", recipe, "--activations", "int8/static")
    assert "--activations and --recipe cannot stand together" in refused(clash)
    assert not (tmp_path / "other").exists()


def test_a_damaged_scale_is_refused(made, anybit):
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(made / "model.safetensors")
    name = next(name for name in tensors if name.endswith("down_proj.input_scale"))
    tensors[name] = torch.tensor(float("nan"))
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    assert name in refused(anybit("eval", made))
    config = json.loads((made / "config.json").read_text())
    del config["quantization_config"]["act"]
    (made / "config.json").write_text(json.dumps(config))
    assert anybit("eval", made, "--tokens", 60).code == 0  # nothing asks for the scales
