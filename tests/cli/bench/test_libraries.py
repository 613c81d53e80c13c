"""Finding and starting the libraries; the scripts themselves are run with torch, which anybit needs anyway."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from anybit.cli.bench import libraries
from anybit.cli.bench.peers import Peer
from anybit.errors import AnybitError

REPOSITORY = Path(__file__).resolve().parents[3]
JOB = {"rows": 64, "cols": 512, "threads": 1, "seconds": 0.01}
PRODUCTS = {"threads": 1, "copies": 3, "copy_bytes": 1 << 20}


def test_names():
    assert libraries.FORMATS.wanted("all") == libraries.FORMATS.names
    assert libraries.FORMATS.wanted("torch, gfloat") == ("torch", "gfloat")
    assert libraries.FORMATS.wanted("") == ()
    with pytest.raises(AnybitError, match="unknown library 'chop'; --peers takes all, or pychop, qtorch"):
        libraries.FORMATS.wanted("chop")
    with pytest.raises(AnybitError, match="unknown library 'pychop'; --peers takes all, or ggml, onnxruntime"):
        libraries.MATMUL.wanted("pychop")


def test_missing_ones_say_how_to_get_them(tmp_path):
    formats = libraries.FORMATS
    with pytest.raises(AnybitError, match=r"cpfloat is not measured: a C library without a Python package"):
        formats.command("cpfloat", REPOSITORY)
    with pytest.raises(AnybitError, match="checkout"):
        formats.command("pychop", None)
    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    (tmp_path / "benchmarks" / "peers" / "run_formats.py").touch()
    with pytest.raises(AnybitError, match="pychop is not installed; `make peers`"):
        formats.command("pychop", tmp_path)
    with ExitStack() as stack:
        found = formats.start(["cpfloat", "pychop", "torch"], tmp_path, JOB, stack)
    assert found.running == {} and list(found.absent) == ["cpfloat", "pychop", "torch"]
    assert "did not start" in found.absent["torch"]


def test_the_script_of_formats_answers():
    with ExitStack() as stack:
        found = libraries.FORMATS.start(["torch"], REPOSITORY, JOB, stack)
        assert list(found.versions) == ["torch"] and not found.absent
        torch = found.running["torch"]
        answer = torch.ask(json.dumps({"format": "e5m2", "mode": "nearest_even"}))
        assert 0 < answer["seconds"] < 60 and answer["elements"] % 512 == 0 and answer["elements"] <= 64 * 512
        assert "lacks" in torch.ask(json.dumps({"format": "e5m2", "mode": "up"}))
        assert "lacks" in torch.ask(json.dumps({"format": "posit8_1", "mode": "nearest_even"}))


def test_ml_dtypes_by_the_same_script():
    """Its casts, from the interpreter of the tests: a peer that is not torch."""
    script = REPOSITORY / "benchmarks" / "peers" / "run_formats.py"
    with Peer("ml_dtypes", [sys.executable, str(script), "ml_dtypes"], JOB) as peer:
        assert peer.about["engine"] == "ml_dtypes"
        assert peer.ask(json.dumps({"format": "e2m1", "mode": "nearest_even"}))["elements"] > 0


def products(peer: Peer, m: int, n: int, k: int) -> dict[str, dict]:
    """The answers of all formats."""
    return {fmt: peer.ask(json.dumps({"m": m, "n": n, "k": k, "format": fmt})) for fmt in peer.about["formats"]}


@pytest.mark.parametrize("name", libraries.MATMUL.names)
def test_products_of_a_library_are_right(name):
    """Each format's product is near the float64 one, for one row and for many; what is not installed is skipped."""
    with ExitStack() as stack:
        found = libraries.MATMUL.start([name], REPOSITORY, PRODUCTS, stack)
        if name in found.absent:
            pytest.skip(found.absent[name])
        peer = found.running[name]
        for m in (1, 20):
            answers = products(peer, m, 256, 512)
            able = {fmt: answer for fmt, answer in answers.items() if "lacks" not in answer}
            assert able
            for fmt, answer in able.items():
                bits = 8 * answer["bytes"] / (256 * 512)
                assert answer["seconds"] > 0 and answer["arithmetic"] in ("int8", "bf16", "fp32")
                # a step of the grid is about 2^(1-bits) of the largest weight, and formats of up to 2 bits keep little more than signs
                assert answer["error"] < (0.75 if bits < 2.7 else 2.5 * 2.0**-bits + 0.03), (fmt, bits, answer)
        lacking = (
            peer.ask(json.dumps({"m": 1, "n": 20, "k": 100, "format": "int4pack g128 bf16"}))
            if name == "torch"
            else {"lacks": ""}
        )
        assert "lacks" in lacking
