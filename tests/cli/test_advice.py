"""Each thing that can be missing is reported when, and only when, it is."""

from __future__ import annotations

from dataclasses import replace

from anybit.cli.advice import OPTIONAL, advice
from anybit.cli.machine import machine

FAST = [("avx2", "AVX2, FMA", True), ("scalar", "nothing", True)]
SLOW = [("avx2", "AVX2, FMA", False), ("scalar", "nothing", True)]
GOOD = replace(machine(), huge_pages="madvise")


def missing(*arguments) -> list[str]:
    return [one.missing for one in advice(*arguments) if not one.missing.startswith("the package")]


def test_nothing_is_missing():
    assert missing(GOOD, FAST, None, True) == []


def test_each_lack_is_named():
    assert "No such file" in missing(GOOD, [], "No such file", True)[0]
    assert "AVX2, FMA" in missing(GOOD, SLOW, None, True)[0]
    assert "never" in missing(replace(GOOD, huge_pages="never"), FAST, None, True)[0]
    assert ".venv-peers" in missing(GOOD, FAST, None, False)[0]


def test_packages(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    names = [one.missing for one in advice(GOOD, FAST, None, True)]
    assert names == [f"the package {package}" for package in OPTIONAL]


def test_every_advice_has_a_remedy():
    for one in advice(replace(GOOD, huge_pages="never"), SLOW, None, False):
        assert one.matters
        assert one.remedy
