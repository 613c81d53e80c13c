"""The versions are those that were promised, and every recipe is valid."""

from __future__ import annotations

from anybit.cli.demo.versions import FULL, QUICK
from anybit.recipes import Recipe


def test_what_was_promised():
    names = [version.name for version in FULL]
    assert names[0] == "bf16"
    for bits in (8, 4, 3):
        assert f"RTN {bits} bits" in names
        assert f"GPTQ {bits} bits" in names
    assert names[-2:] == ["mixed 3.5 bits", "mixed 2.75 bits"]
    assert len(set(names)) == len(names) == 9
    assert all(version in FULL for version in QUICK)


def test_recipes():
    for version in FULL[1:]:
        recipe = Recipe.parse(dict(version.recipe))
        assert recipe.uniform == (version.method != "mixed")
        assert recipe.method == ("rtn" if version.method == "rtn" else "gptq")
        if recipe.uniform:
            assert recipe.weights == recipe.embeddings == f"int{version.name.split()[1]}/g64"
        else:
            assert f"mixed {recipe.bits:g} bits" == version.name
    assert len({version.folder for version in FULL}) == len(FULL)
