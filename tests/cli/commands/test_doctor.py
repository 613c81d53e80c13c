"""`anybit doctor` agrees with the operating system and the native module."""

from __future__ import annotations

import os

import pytest


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


def made_up(threads: int):
    """A table and three predictions, one of them wrong."""
    from anybit.cli.bench.calibrate import Checked
    from anybit.ops import costs
    from anybit.ops.costs import Costs, Curve

    module = pytest.importorskip("anybit._native")
    curve = {"int8/integer4": Curve((1e-12,), (0.0,)), "exact/integer4": Curve((1e-11,), (0.0,))}
    table = Costs(
        costs.processor(), module.isa(), threads, 7e9, 0.25, 128, (1,), {"any": (2.0,)}, {}, curve, {"int8": 5e11}
    )
    times = ((None, 1e-3), ("bf16", 9e-4), ("int8/row", 2e-3))
    return table, [Checked(1, 8, 8, "int4/g128", act, predicted, 1e-3) for act, predicted in times]


def test_calibrate(anybit, monkeypatch, tmp_path):
    from anybit import ops
    from anybit.cli.bench import calibrate, limits
    from anybit.ops import costs

    monkeypatch.setenv("ANYBIT_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(calibrate, "measure", lambda threads, tell: made_up(threads)[0])
    monkeypatch.setattr(calibrate, "check", lambda shapes, tell: made_up(1)[1])
    monkeypatch.setattr(limits, "peak", lambda kind, count: 4.5e11)
    monkeypatch.setattr(calibrate, "bandwidth", lambda evict: 5.5e9)
    slower = anybit("doctor", "--calibrate").out
    assert "speed changed, it now reads 5.5 GB/s and computes 450 GOP/s of int8" in slower
    monkeypatch.setattr(calibrate, "bandwidth", lambda evict: 6.5e9)
    done = anybit("doctor", "--calibrate")
    assert "speed changed" not in done.out
    assert done.code == 0, done.err
    assert "2 of 3 predictions are within 25 %" in done.out and "+100 % (missed)" in done.out and "7.0 GB/s" in done.out
    document = anybit("doctor", "--calibrate", "--json").json["calibration"]
    assert [row["threads"] for row in document] == sorted({1, len(os.sched_getaffinity(0))})
    assert all(row["within"] == 2 and len(row["checked"]) == 3 for row in document)
    # the next prediction is by the table
    found = ops.explain("matmul", (1, 8, 8, "int4/row", None))
    assert found["calibrated"] == (
        pytest.importorskip("anybit._native").threads() in {row["threads"] for row in document}
    )
    assert found["predicted_seconds"] > 0.25 or not found["calibrated"]
    monkeypatch.undo()
    costs.forget()


def test_calibrate_needs_kernels(anybit, monkeypatch):
    from anybit.cli.commands import doctor

    monkeypatch.setattr(doctor, "native", lambda: ([], "", 0, "no module named _native"))
    done = anybit("doctor", "--calibrate")
    assert (done.code, done.out) == (2, "") and "no kernels to measure" in done.err
    assert anybit("doctor", "--calibrate", "--quick").code == 2
