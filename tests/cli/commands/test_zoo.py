"""The wrapper prints the table, measures, and hands errors on."""

from dataclasses import replace

import pytest

from anybit.zoo import MEMBERS, members


def test_list(anybit):
    done = anybit("zoo", "list", "--json")
    assert done.code == 0
    assert [row["name"] for row in done.json] == [m.name for m in MEMBERS]
    assert all(row["status"] and row["licence"] for row in done.json)
    assert "anybit-tiny" in anybit("zoo", "list").out


def test_eval(anybit, shared_data):
    done = anybit("zoo", "eval", "silero-vad", "--json")
    assert done.code == 0 and done.json["value"] == done.json["unquantized"] == 100.0
    assert done.json["gap"] == 0 and done.json["bytes"] > 1e6 and done.json["better"] == "high"
    text = anybit("zoo", "eval", "dscnn-kws").out
    assert "91.3" in text and "higher is better" in text


def test_a_quantized_member_is_measured(anybit, shared_data, tmp_path):
    out = tmp_path / "out"
    assert anybit("quantize", "dscnn-kws", out, "--weights", "int8/row").code == 0
    done = anybit("zoo", "eval", out, "--json")
    assert done.json["member"] == "dscnn-kws" and done.json["value"] > 90.5


WORST = {"int8/row": 0.04, "int4/g64": 0.15}
"""How much of its metric a member may lose."""
WORST_FOUR_BIT_MOBILENET = 0.3
"""MobileNets for photographs, whose calibration images are enlarged small ones; without calibration they lose all of it."""


def there_and_back(anybit, out, name, weights):
    """One command each way, whatever the member is; nothing is known of it here but how much of the metric may go."""
    member = members.find(name)
    if not member.trained:
        pytest.skip(f"{name} is {member.status}")
    assert anybit("quantize", name, out, "--weights", weights).code == 0
    found = anybit("zoo", "eval", out, "--json").json
    assert found["member"] == name
    photographs = name.startswith("mobilenet-v") and weights == "int4/g64"
    assert abs(min(found["gap"], 0)) <= (WORST_FOUR_BIT_MOBILENET if photographs else WORST[weights]) * member.bar
    return found


@pytest.mark.slow
@pytest.mark.parametrize("weights", WORST)
@pytest.mark.parametrize("name", [m.name for m in MEMBERS])
def test_every_member_comes_back_to_its_metric(anybit, shared_data, tmp_path, monkeypatch, name, weights):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    there_and_back(anybit, tmp_path / "out", name, weights)


@pytest.mark.parametrize("weights", WORST)
def test_the_two_smallest_members_come_back_to_their_metric(anybit, shared_data, tmp_path, weights):
    for name in ("dscnn-kws", "resnet8"):
        there_and_back(anybit, tmp_path / name, name, weights)


def test_advice_is_printed(anybit, shared_data, tmp_path):
    text = anybit("quantize", "dscnn-kws", tmp_path / "out", "--weights", "int4/g64").out
    assert "note: 4 grouped convolutions go to int8/row" in text and "--weights int8/row keeps more of it" in text


def test_what_is_not_there_is_refused(anybit, tmp_path, monkeypatch):
    rows = tuple(replace(m, sha256=None, bar=None) if m.name == "vit" else m for m in MEMBERS)
    monkeypatch.setattr(members, "MEMBERS", rows)
    done = anybit("zoo", "eval", "vit")
    assert done.code == 2 and "not trained yet: run python -m anybit.zoo.train_vit" in done.err
    done = anybit("zoo", "eval", "resnet21")
    assert done.code == 2 and "did you mean" in done.err and "resnet20" in done.err
    done = anybit("zoo", "eval", tmp_path)
    assert done.code == 2 and "anybit.json is missing" in done.err


def test_help_teaches(anybit):
    text = anybit("zoo", "eval", "--help").out
    assert "anybit quantize resnet20 small --weights int4/g64" in text
