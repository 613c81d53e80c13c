"""`anybit quantize`: says beforehand what it then does, refuses what cannot finish, and leaves nothing half-written."""

from __future__ import annotations

import hashlib
import json
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

RTN = ("--weights", "int4/g64", "--method", "rtn")


def test_the_help_names_every_method_and_transform():
    from anybit.cli.commands import quantize
    from anybit.quantize import table
    from anybit.transforms import table as transforms

    assert {name.split(" ")[0] for name in quantize.METHODS_HELP.split(", ")} == set(table.METHODS)
    assert set(quantize.TRANSFORMS_HELP.split(", ")) == set(transforms.TRANSFORMS)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_does_what_it_said(tiny_folder, tmp_path, anybit):
    out = tmp_path / "out"
    done = anybit("quantize", tiny_folder, out, *RTN, "--json")
    assert done.code == 0, done.err
    plan, result = done.json["plan"], done.json["result"]
    stored = sum(t.numel() * t.element_size() for file in out.glob("*.safetensors") for t in load_file(file).values())
    assert result["bytes"] == plan["predicted_bytes"] == stored
    assert result["bits_per_weight"] == pytest.approx(8 * stored / plan["parameters"])
    assert result["formats"] == {t["name"]: t["format"] for t in plan["tensors"]}
    assert listing(tmp_path) == ["out"]
    scored = anybit("eval", out, "--tokens", 60, "--executor", "torch", "--json")
    assert scored.json["bits_per_weight"] == pytest.approx(result["bits_per_weight"])


def test_budget_is_kept(tiny_folder, tmp_path, anybit):
    done = anybit("quantize", tiny_folder, tmp_path / "out", "--bits", 4.3, "--samples", 4, "--length", 64, "--json")
    assert done.code == 0, done.err
    assert 3.5 < done.json["result"]["bits_per_weight"] <= 4.3
    assert len(set(done.json["result"]["formats"].values())) > 1


def test_people_are_told_beforehand(tiny_folder, tmp_path, anybit):
    done = anybit("quantize", tiny_folder, tmp_path / "out", *RTN, "--dry-run")
    assert done.code == 0
    for word in ("int4/g64", "size", "bits a weight", "memory", "time", "nothing was written"):
        assert word in done.out
    assert listing(tmp_path) == []


def test_recipe_file(tiny_folder, tmp_path, anybit):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "weights: int4/g64\nmethod: rtn\noverrides:\n  - {pattern: '*.down_proj.weight', weights: int8/row}\n"
    )
    done = anybit("quantize", tiny_folder, tmp_path / "out", "--recipe", recipe, "--dry-run", "--json")
    formats = {t["name"]: t["format"] for t in done.json["plan"]["tensors"]}
    assert formats["model.layers.0.mlp.down_proj.weight"] == "int8/row"
    assert formats["model.layers.0.mlp.up_proj.weight"] == "int4/g64"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "0"], ["bits", "0"]),
        (["--bits", "17"], ["bits", "17"]),
        (["--bits", "1.2"], ["1.2", "below the smallest"]),
        (["--bits", "nan"], ["bits"]),
        (["--weights", "int9/g64"], ["int9"]),
        (["--weights", "int4"], ["int4/g128"]),
        (["--weights", "int17/row"], ["int17"]),
        (["--weights", "int4/g0"], ["g0"]),
        (["--weights", "int4/g64", "--bits", "4"], ["--weights", "--bits"]),
        (["--weights", "int4/g64", "--method", "magic"], ["magic", "gptq"]),
        ([], ["--weights", "--bits", "--recipe"]),
        (["--recipe", "/no/such/recipe"], ["/no/such/recipe"]),
        (["--weights", "int4/g64", "--calibration", "/no/such/text"], ["/no/such/text"]),
        (["--weights", "int4/g64", "--samples", "0"], ["samples"]),
        (["--weights", "int4/g64", "--length", "-1"], ["length"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_bad_options(options, words, tiny_folder, tmp_path, anybit):
    done = anybit("quantize", tiny_folder, tmp_path / "out", *options)
    assert (done.code, done.out) == (2, "")
    for word in words:
        assert word in done.err
    assert done.err.count("\n") == 1
    assert listing(tmp_path) == []


def test_options_and_recipe_contradict(tiny_folder, tmp_path, anybit):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("weights: int4/g64")
    done = anybit("quantize", tiny_folder, tmp_path / "out", "--recipe", recipe, "--bits", "3")
    assert done.code == 2
    assert "--bits and --recipe cannot stand together" in done.err


@pytest.mark.parametrize("text", ["", " \n\t\n", "too short"])
def test_unusable_calibration_text(text, tiny_folder, tmp_path, anybit):
    path = tmp_path / "text.txt"
    path.write_text(text)
    done = anybit("quantize", tiny_folder, tmp_path / "out", "--weights", "int4/g64", "--calibration", path)
    assert (done.code, done.out) == (2, "")
    assert str(path) in done.err
    assert listing(tmp_path) == ["text.txt"]


def test_output_that_exists(tiny_folder, tmp_path, anybit):
    out = tmp_path / "out"
    assert anybit("quantize", tiny_folder, out, *RTN).code == 0
    before = hashes(out)
    done = anybit("quantize", tiny_folder, out, "--weights", "int8/row", "--method", "rtn")
    assert done.code == 2
    assert "--overwrite" in done.err
    assert hashes(out) == before
    assert anybit("quantize", tiny_folder, out, "--weights", "int8/row", "--method", "rtn", "--overwrite").code == 0
    assert hashes(out) != before


def test_foreign_folder_is_not_overwritten(tiny_folder, tmp_path, anybit):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    done = anybit("quantize", tiny_folder, out, *RTN, "--overwrite")
    assert done.code == 2
    assert listing(out) == ["thesis.txt"]


def test_output_that_cannot_be_written(tiny_folder, tmp_path, anybit):
    (tmp_path / "file").write_text("x")
    done = anybit("quantize", tiny_folder, tmp_path / "file" / "out", *RTN)
    assert (done.code, done.out) == (2, "")
    assert "out" in done.err
    assert listing(tmp_path) == ["file"]


def test_output_is_the_model(tiny, anybit):
    before = hashes(tiny)
    assert anybit("quantize", tiny, tiny, *RTN, "--overwrite").code == 2
    assert hashes(tiny) == before


def test_no_disk_space(tiny_folder, tmp_path, anybit, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    done = anybit("quantize", tiny_folder, tmp_path / "out", *RTN)
    assert (done.code, done.out) == (2, "")
    assert "free" in done.err
    assert listing(tmp_path) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(bad, tiny, tmp_path, anybit):
    tensors = load_file(tiny / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = bad
    save_file(tensors, tiny / "model.safetensors", metadata={"format": "pt"})
    done = anybit("quantize", tiny, tmp_path / "out", *RTN)
    assert done.code == 2
    assert "model.layers.1.mlp.up_proj.weight" in done.err
    assert not (tmp_path / "out").exists()


def test_groups_that_do_not_divide_are_announced(tiny_folder, tmp_path, anybit):
    done = anybit("quantize", tiny_folder, tmp_path / "out", "--weights", "int4/g100", "--method", "rtn")
    assert done.code == 0, done.err
    assert "128 columns in groups of 100" in done.out


def test_quantized_model_is_refused(tiny_folder, tmp_path, anybit):
    assert anybit("quantize", tiny_folder, tmp_path / "once", *RTN).code == 0
    done = anybit("quantize", tmp_path / "once", tmp_path / "twice", *RTN)
    assert done.code == 2
    assert "quantized already" in done.err


def test_interrupted_run_goes_on_to_the_same_bytes(tiny_folder, tmp_path, anybit, monkeypatch):
    from anybit.recipes.journal import Journal

    assert anybit("quantize", tiny_folder, tmp_path / "straight", *RTN).code == 0
    put, calls = Journal.put, []

    def interrupted(self, name, *rest):
        calls.append(name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        put(self, name, *rest)

    monkeypatch.setattr(Journal, "put", interrupted)
    out = tmp_path / "out"
    done = anybit("quantize", tiny_folder, out, *RTN)
    assert done.code == 130
    assert "the same command goes on from here" in done.out
    assert not out.exists()
    monkeypatch.setattr(Journal, "put", put)
    done = anybit("quantize", tiny_folder, out, *RTN, "--json")
    assert done.code == 0, done.err
    assert done.json["result"]["resumed_pieces"] == 4
    assert hashes(out) == hashes(tmp_path / "straight")
    assert listing(tmp_path) == ["out", "straight"]


def test_manifest_has_formats_and_hashes(tiny_folder, tmp_path, anybit):
    out = tmp_path / "out"
    anybit("quantize", tiny_folder, out, *RTN)
    manifest = json.loads((out / "anybit.json").read_text())
    entry = manifest["tensors"]["model.layers.0.mlp.up_proj.weight"]
    assert entry["format"] == "int4/g64"
    assert torch.Size(entry["shape"]) == torch.Size([384, 128])


def test_a_size_is_a_budget(tiny_folder, tmp_path, anybit):
    done = anybit(
        "quantize", tiny_folder, tmp_path / "out", "--size", "250kB", "--samples", 4, "--length", 64, "--json"
    )
    assert done.code == 0, done.err
    assert 220_000 < done.json["result"]["bytes"] <= 250_000
    ample = anybit("quantize", tiny_folder, tmp_path / "ample", "--size", "90MB", "--method", "rtn", "--json")
    assert ample.code == 0 and 15 < ample.json["result"]["bits_per_weight"] < 16.1, ample.err
    for options, sentence in (
        (("--size", "60kB", "--bits", 4), "--size and --bits cannot stand together"),
        (("--size", "much"), "a size is a number of bytes above 0"),
    ):
        bad = anybit("quantize", tiny_folder, tmp_path / "bad", *options)
        assert bad.code == 2 and sentence in bad.err
