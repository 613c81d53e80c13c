"""`anybit doctor` agrees with the operating system and the native module."""

from __future__ import annotations

import os


def test_json(anybit):
    done = anybit("doctor", "--quick", "--json")
    assert done.code == 0, done.err
    document = done.json
    assert document["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert document["native"]["isa"] in [one["name"] for one in document["native"]["isas"] if one["usable"]]
    assert document["measured"] == {}
    for kernel in document["kernels"]:
        assert kernel["kernel"]
        assert kernel["why"]
    assert len(document["kernels"]) >= 5


def test_people_read_what_is_missing(anybit):
    done = anybit("doctor", "--quick")
    assert done.code == 0
    assert "processor" in done.out
    assert "kernels" in done.out
    assert "missing" in done.out


def test_without_the_native_module(anybit, monkeypatch):
    from anybit.cli.commands import doctor

    monkeypatch.setattr(doctor, "native", lambda: ([], "", 0, "no module named _native"))
    done = anybit("doctor", "--json")
    assert done.code == 0
    assert done.json["native"]["error"] == "no module named _native"
    assert any("make native" in one["remedy"] for one in done.json["missing"])
