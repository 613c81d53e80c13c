"""Every getter takes what it says and refuses the rest, naming key and value."""

import pytest

from anybit.errors import CheckpointError, UnsupportedModelError
from anybit.models.config import Config, read_json


def test_values_and_defaults():
    config = Config({"n": 3, "x": 0.5, "on": True, "name": "a", "none": None, "map": {"k": 1}, "zero": 0})
    assert config.integer("n") == 3 and config.integer("absent", 7) == 7 and config.integer("zero", least=0) == 0
    assert config.number("x") == 0.5 and config.number("n") == 3.0 and config.number("none", 2.0) == 2.0
    assert config.optional_number("none", 4.0) == 0 and config.optional_number("absent", 4.0) == 4
    assert config.optional_number("zero", 4.0) == 0
    assert config.flag("on") and not config.flag("absent")
    assert config.text("name") == "a" and config.mapping("map") == {"k": 1} and config.mapping("none") == {}
    assert config.layer_types(2, ["full_attention"] * 2) == ["full_attention"] * 2


@pytest.mark.parametrize(
    "getter, value, sentence",
    [
        ("integer", 2.0, "k must be an integer of at least 1; got 2.0"),
        ("integer", True, "k must be an integer of at least 1; got True"),
        ("integer", 0, "k must be an integer of at least 1; got 0"),
        ("number", "5", "k must be a number above 0; got '5'"),
        ("number", -1, "k must be a number above 0; got -1"),
        ("number", float("inf"), "k must be a number above 0; got inf"),
        ("number", float("nan"), "k must be a number above 0; got nan"),
        ("flag", "yes", "k must be true or false; got 'yes'"),
        ("text", 3, "k must be a string; got 3"),
        ("mapping", [1], r"k must be an object; got \[1\]"),
    ],
)
def test_refusals(getter, value, sentence):
    with pytest.raises(UnsupportedModelError, match=sentence):
        getattr(Config({"k": value}), getter)("k")


def test_missing_key():
    with pytest.raises(UnsupportedModelError, match=r"config.json: hidden_size is missing"):
        Config({}).integer("hidden_size")


@pytest.mark.parametrize("kinds", [["full_attention"], ["full_attention", "linear_attention"], "full_attention"])
def test_layer_types(kinds):
    with pytest.raises(UnsupportedModelError, match="layer_types must be a list of 2 names"):
        Config({"layer_types": kinds}).layer_types(2, [])


@pytest.mark.parametrize(
    "text, sentence", [("{", "cannot be read as JSON"), ("[1]", "must hold a JSON object; got list")]
)
def test_json_files(tmp_path, text, sentence):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        read_json(tmp_path / "c.json", "for the test")
    with pytest.raises(CheckpointError, match=r"d.json is missing: for the test"):
        read_json(tmp_path / "d.json", "for the test")
