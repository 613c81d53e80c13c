"""`anybit quantize --method auto`: says what it tries, keeps the best, and leaves no trial behind."""

import json

import pytest

from anybit.recipes import auto


@pytest.mark.parametrize("tried", [(("gptq", ()), ("rtn", ())), pytest.param(auto.BUDGET, marks=pytest.mark.slow)])
def test_auto_says_what_it_tried(tried, tiny_folder, tmp_path, anybit, monkeypatch):
    common = ("--weights", "int3/g64", "--samples", 4, "--length", 64, "--json", "--transforms", "none")
    dry = anybit("quantize", tiny_folder, tmp_path / "out", "--method", "auto", *common, "--dry-run")
    assert [each["candidate"] for each in dry.json["plan"]["candidates"]] == [
        "gptq",
        "gradient_ptq",
        "distill",
    ]
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(auto, "BUDGET", tried)
    done = anybit("quantize", tiny_folder, tmp_path / "out", "--method", "auto", *common)
    assert done.code == 0, done.err
    kls = {each["candidate"]: each["kl"] for each in done.json["tried"]}
    assert done.json["best"] == min(kls, key=kls.get) and done.json["result"]["bits_per_weight"] < 16
    said = json.loads((tmp_path / "out" / "anybit.json").read_text())["recipe"]
    assert said["tried"] == done.json["tried"] and said["method"] == done.json["best"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_auto_refuses(tiny_folder, tmp_path, anybit):
    for options, sentence in (
        (("--method", "auto", "--recipe", tmp_path / "r.yaml"), "--method auto and --recipe cannot stand together"),
        (("--method", "auto"), "say what the weights become"),
        (("--method", "auto", "--bits", 1.1), "below the smallest possible"),
    ):
        bad = anybit("quantize", tiny_folder, tmp_path / "bad", *options)
        assert bad.code == 2 and sentence in bad.err
    bad = anybit("quantize", "vit", tmp_path / "bad", "--method", "auto", "--weights", "int4/g64")
    assert bad.code == 2 and "--method auto is for decoders" in bad.err
