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
    assert [(row["m"], row["format"]) for row in rows] == [
        (m, case) for m in (1, 3) for case in ("int4/g64", "nf4/g64", "nf4/g64 int8 levels", "torch fp32", "torch bf16")
    ]
    for row in rows:
        assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
        assert row["operations_per_s"] == pytest.approx(2 * row["m"] * row["n"] * row["k"] / row["seconds"]["median"])
        assert row["share_of_read_bandwidth"] > 0
    # 64 rows of 128 four-bit codes, and a 16-bit scale for each half row
    assert rows[0]["bytes"] == 64 * 64 + 64 * 2 * 2


def test_matmul_with_peers(anybit, tmp_path):
    picture = tmp_path / "roofline.png"
    done = anybit(
        "bench", "matmul", "--shapes", "2x256x512", "--formats", "int8/row,int4/g128", "--peers", "torch", "--quick", "--threads", 1,
        "--warm", "--picture", picture, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert list(done.json["versions"]) == ["torch"] and done.json["absent"] == {}
    rows = {row["format"]: row for row in done.json["results"]}
    assert {row["engine"] for row in rows.values()} == {"anybit", "torch"}
    assert rows["int8/row"]["best_peer"] in {
        name for name, row in rows.items() if row["engine"] == "torch" and row["bits"] < 9
    }
    assert rows["int4/g128"]["best_peer"] == "torch int4pack g128 bf16"
    assert rows["int4/g128"]["best_peer_us"] == rows["torch int4pack g128 bf16"]["us"]
    for row in rows.values():
        computing = row["compute_floor_us"]  # of bf16 none where no instruction multiplies it
        assert row["floor_us"] == max(row["read_floor_us"], computing or 0) and (
            computing or row["arithmetic"] == "bf16"
        )
        assert row["threads"] == 1 and row["seconds"]["rounds"] == 3
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_missing_peers_are_told(anybit, monkeypatch, tmp_path):
    from anybit.reproduce import runner

    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    (tmp_path / "benchmarks" / "peers" / "run_matmul.py").touch()
    monkeypatch.setattr(runner, "checkout", lambda: tmp_path)
    done = anybit(
        "bench", "matmul", "--shapes", "1x64x128", "--formats", "int8/row", "--peers", "openvino", "--rounds", 1,
        "--warm", "--threads", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "openvino is not installed; `make peers`" in " ".join(done.out.split())


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
        (["matmul", "--formats", "int8/static"], "static"),
        (["matmul", "--formats", "none"], "none"),
        (["matmul", "--formats", "int8/row@int8/static"], "scales that are found in x"),
        (["matmul", "--formats", "int8/row@int99/row"], "int99"),
        (["matmul", "--act", "int8/static"], "scales that are found in x"),
        (["matmul", "--threads", "0"], "--threads"),
        (["matmul", "--threads", "two"], "'two' is not a number"),
        (["matmul", "--rounds", "0"], "--rounds"),
        (["matmul", "--peers", "vim"], "unknown library 'vim'"),
        (["matmul", "--picture", "a.gif"], ".png or .svg"),
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
