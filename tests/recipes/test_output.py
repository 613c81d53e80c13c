import json
from pathlib import Path

from anybit import recipes
from anybit.recipes import output
from anybit.recipes.recipe import Recipe


def test_manifest_names_job_and_reports_and_written_recognises_it(model: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse({"weights": "int4/g16", "method": "rtn", "kv": "int8/row"})
    recipes.run(model, recipe, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "anybit.json").read_text())
    assert Recipe.parse(manifest["recipe"]) == recipe
    entry = manifest["tensors"]["model.layers.0.mlp.up_proj.weight"]
    assert entry["format"] == "int4/g16" and 0 < entry["report"]["relative_error"] < 0.05
    mark = {key: value for key, value in manifest["provenance"].items() if key != "expected_loss"}
    assert set(mark) == {"anybit", "model", "recipe", "calibration"}
    assert output.written(tmp_path / "out", mark)
    assert not output.written(tmp_path / "out", {**mark, "recipe": "other"})
    assert not output.written(model, mark)
    assert not output.written(tmp_path / "absent", mark)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
