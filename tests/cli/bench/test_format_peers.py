"""Finding and starting the libraries; the script itself is run with torch, which anybit needs anyway."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from anybit.cli.bench import format_peers
from anybit.errors import AnybitError

REPOSITORY = Path(__file__).resolve().parents[3]
JOB = {"rows": 64, "cols": 512, "threads": 1, "seconds": 0.01}


def test_names():
    assert format_peers.wanted("all") == format_peers.LIBRARIES
    assert format_peers.wanted("torch, gfloat") == ("torch", "gfloat")
    assert format_peers.wanted("") == ()
    with pytest.raises(AnybitError, match="unknown library 'chop'; --peers takes all, or pychop, qtorch"):
        format_peers.wanted("chop")


def test_missing_ones_say_how_to_get_them(tmp_path):
    with pytest.raises(AnybitError, match=r"cpfloat is not measured: a C library without a Python package"):
        format_peers.command("cpfloat", REPOSITORY)
    with pytest.raises(AnybitError, match="checkout"):
        format_peers.command("pychop", None)
    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    (tmp_path / "benchmarks" / "peers" / "run_formats.py").touch()
    with pytest.raises(AnybitError, match="pychop is not installed; `make peers`"):
        format_peers.command("pychop", tmp_path)
    with ExitStack() as stack:
        found = format_peers.start(["cpfloat", "pychop", "torch"], tmp_path, JOB, stack)
    assert found.running == {} and list(found.absent) == ["cpfloat", "pychop", "torch"]
    assert "did not start" in found.absent["torch"]


def test_the_script_answers(monkeypatch):
    with ExitStack() as stack:
        found = format_peers.start(["torch"], REPOSITORY, JOB, stack)
        assert list(found.versions) == ["torch"] and not found.absent
        torch = found.running["torch"]
        answer = torch.ask(json.dumps({"format": "e5m2", "mode": "nearest_even"}))
        assert 0 < answer["seconds"] < 60 and answer["elements"] % 512 == 0 and answer["elements"] <= 64 * 512
        assert "lacks" in torch.ask(json.dumps({"format": "e5m2", "mode": "up"}))
        assert "lacks" in torch.ask(json.dumps({"format": "posit8_1", "mode": "nearest_even"}))


def test_ml_dtypes_by_the_same_script(tmp_path):
    """Its casts, from the interpreter of the tests: a peer that is not torch."""
    from anybit.cli.bench.peers import Peer

    script = REPOSITORY / "benchmarks" / "peers" / "run_formats.py"
    with Peer("ml_dtypes", [sys.executable, str(script), "ml_dtypes"], JOB) as peer:
        assert peer.about["engine"] == "ml_dtypes"
        assert peer.ask(json.dumps({"format": "e2m1", "mode": "nearest_even"}))["elements"] > 0
