"""`anybit bench` runs small and its document is complete; what is wrong is refused before anything is measured."""

from __future__ import annotations

import pytest


def test_matmul(anybit):
    done = anybit(
        "bench",
        "matmul",
        "--shapes",
        "1x64x128,3x32x64",
        "--formats",
        "int4/g64,nf4/g64",
        "--rounds",
        2,
        "--threads",
        1,
        "--warm",
        "--json",
    )
    assert done.code == 0, done.err
    rows = done.json["results"]
    assert [(row["m"], row["case"]) for row in rows] == [
        (m, case) for m in (1, 3) for case in ("int4/g64", "nf4/g64", "torch fp32", "torch bf16")
    ]
    for row in rows:
        assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
        assert row["operations_per_s"] == pytest.approx(2 * row["m"] * row["n"] * row["k"] / row["seconds"]["median"])
        assert row["share_of_read_bandwidth"] > 0
    # 64 rows of 128 four-bit codes, and a 16-bit scale for each half row
    assert rows[0]["bytes"] == 64 * 64 + 64 * 2 * 2


def test_model(anybit):
    done = anybit(
        "bench",
        "model",
        "--synthetic",
        "tiny",
        "--prefill",
        16,
        "--decode",
        4,
        "--rounds",
        2,
        "--threads",
        "1,2",
        "--json",
    )
    assert done.code == 0, done.err
    assert [(row["threads"], row["engine"]) for row in done.json["results"]] == [(1, "anybit"), (2, "anybit")]
    for row in done.json["results"]:
        assert row["prefill_tokens_per_s"]["median"] > 0
        assert row["decode_tokens_per_s"]["rounds"] == 2
    assert done.json["parameters"] == 459_392


def test_real_model(tiny_folder, anybit):
    done = anybit("bench", "model", tiny_folder, "--prefill", 8, "--decode", 2, "--rounds", 1, "--threads", 1)
    assert done.code == 0, done.err
    assert "decode tok/s" in done.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["matmul", "--shapes", "1x2"], "MxNxK"),
        (["matmul", "--formats", "int99/row"], "int99"),
        (["matmul", "--threads", "0"], "--threads"),
        (["matmul", "--threads", "two"], "'two' is not a number"),
        (["matmul", "--rounds", "0"], "--rounds"),
        (["model"], "name one model"),
        (["model", "--synthetic", "70b"], "70b"),
        (["model", "--synthetic", "tiny", "--prefill", "0"], "--prefill"),
        (["model", "--synthetic", "tiny", "--peers", "vim"], "unknown peer 'vim'"),
        (["model", "--synthetic", "tiny", "--format", "int4/g0"], "g0"),
        (["model", "/no/such/model"], "/no/such/model"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_bad_options(arguments, word, anybit):
    done = anybit("bench", *arguments, "--json")
    assert (done.code, done.out) == (2, "")
    assert word in done.err


def test_formats(anybit):
    done = anybit(
        "bench", "formats", "--quick", "--rounds", 1, "--formats", "e5m2,mxfp4", "--modes", "nearest_even,up",
        "--peers", "torch,cpfloat", "--threads", 1, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (found,) = done.json["results"]
    assert found["rows"] == found["cols"] == 1024
    assert list(found["versions"]) == ["torch"] and "C library" in found["absent"]["cpfloat"]
    assert [(row["format"], row["mode"], list(row["libraries"])) for row in found["cases"]] == [
        ("e5m2", "nearest_even", ["torch"]),
        ("e5m2", "up", []),
        ("mxfp4", "nearest_even", []),
        ("mxfp4", "up", []),
    ]
    first = found["cases"][0]
    assert first["elements"] == 1 << 20 and first["floor_seconds"] > 0
    torch = first["libraries"]["torch"]
    assert torch["anybit_is_faster"] == pytest.approx(torch["seconds"]["median"] / first["seconds"]["median"])


def test_formats_prints_a_table(anybit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    done = anybit(
        "bench", "formats", "--quick", "--rounds", 1, "--formats", "nvfp4", "--modes", "nearest_even",
        "--peers", "cpfloat", "--threads", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "ms for 10^6 numbers" in done.out and "cpfloat is not measured" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formats", "e9m9"], "e9m9"),
        (["--modes", "sideways"], "unknown rounding mode 'sideways'"),
        (["--peers", "chop"], "unknown library 'chop'"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_formats_refuses(anybit, arguments, message):
    done = anybit("bench", "formats", *arguments)
    assert done.code == 2 and message in done.err
