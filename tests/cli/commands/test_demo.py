"""`anybit demo` on a tiny random model: every version is made, scored and timed, and the page written whole."""

from __future__ import annotations

import pytest

from anybit.cli.demo.versions import QUICK


@pytest.fixture
def short(monkeypatch):
    """Measure as little as can be."""
    from anybit.cli.demo import run

    settings = run.Settings(samples=4, length=64, tokens=100, prefill=8, decode=4, rounds=1, story=5)
    monkeypatch.setattr(run, "QUICK_SETTINGS", settings)


def test_quick(short, tiny_folder, tmp_path, anybit):
    out = tmp_path / "page.html"
    done = anybit("demo", "--quick", "--model", tiny_folder, "--out", out, "--keep", tmp_path / "kept", "--json")
    assert done.code == 0, done.err
    document = done.json
    assert [v["name"] for v in document["variants"]] == [version.name for version in QUICK]
    figures = {v["name"]: v for v in document["variants"]}
    assert figures["bf16"]["bits_per_weight"] == 16
    assert figures["mixed 3.5 bits"]["bits_per_weight"] <= 3.5
    assert figures["mixed 3.5 bits"]["layers"]
    for variant in document["variants"]:
        assert variant["perplexity"] > 1
        assert variant["decode"] > 0
    page = out.read_text(encoding="utf-8")
    for version in QUICK:
        assert version.name in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "page.html"]
    assert (tmp_path / "kept" / "mixed-3.5-bits" / "anybit.json").is_file()


def test_bad_output(tiny_folder, tmp_path, anybit):
    for out in (tmp_path, tmp_path / "none" / "page.html"):
        done = anybit("demo", "--model", tiny_folder, "--out", out)
        assert (done.code, done.out) == (2, "")
        assert str(out) in done.err


def test_unknown_model(tmp_path, anybit):
    done = anybit("demo", "--model", "no-such-model", "--out", tmp_path / "page.html")
    assert done.code == 2
    assert "no-such-model" in done.err
