"""The line protocol, against small scripts written here; llama.cpp itself only where it has been installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from anybit.cli.bench import peers, shapes
from anybit.cli.bench.peers import Peer, Round
from anybit.errors import AnybitError

REPOSITORY = Path(__file__).resolve().parents[3]

GOOD = """
import json, sys
job = json.loads(sys.argv[1])
print("noise of a library")
print(json.dumps({"engine": "fake", "threads": job["threads"]}), flush=True)
for line in sys.stdin:
    print(json.dumps({"prefill_tokens": 8, "prefill_seconds": 2.0, "decode_tokens": 3, "decode_seconds": 0.5}), flush=True)
"""


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "peer.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def test_rounds(tmp_path):
    with Peer("fake", script(tmp_path, GOOD), {"threads": 2}) as peer:
        assert peer.about == {"engine": "fake", "threads": 2}
        assert [peer.round() for _ in range(2)] == [Round(8, 2.0, 3, 0.5)] * 2
        process = peer._process
    assert process.returncode == 0
    assert Round(8, 2.0, 3, 0.5).prefill == 4.0
    assert Round(8, 2.0, 3, 0.5).decode == 6.0


def test_a_peer_that_dies_tells_its_last_words(tmp_path):
    with pytest.raises(RuntimeError, match=r"the peer fake ended: .*no such thing"):
        Peer("fake", script(tmp_path, "raise SystemExit('no such thing')"), {})


def test_a_peer_that_dies_between_rounds(tmp_path):
    text = "import sys\nprint('{}', flush=True)\nsys.stdin.readline()\nsys.exit('out of memory')"
    with Peer("fake", script(tmp_path, text), {}) as peer, pytest.raises(RuntimeError, match="out of memory"):
        peer.round()


def test_unknown_and_missing(tmp_path):
    with pytest.raises(AnybitError, match=r"unknown peer 'x'; there are llama\.cpp, transformers"):
        peers.command("x", REPOSITORY)
    with pytest.raises(AnybitError, match="checkout"):
        peers.command("llama.cpp", None)
    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    (tmp_path / "benchmarks" / "peers" / "run_llama.py").touch()
    with pytest.raises(AnybitError, match="make peers"):
        peers.command("llama.cpp", tmp_path)


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_real_peer_runs_a_round(name, tmp_path):
    try:
        arguments = peers.command(name, REPOSITORY)
    except AnybitError as error:
        pytest.skip(str(error))
    job = {
        "config": shapes.config("tiny"),
        "threads": 1,
        "prefill": 16,
        "decode": 4,
        "format": peers.PEERS[name].format,
        "work": str(tmp_path),
    }
    with Peer(name, arguments, job) as peer:
        found = peer.round()
        assert peer.about["bytes"] > 0
    assert (found.prefill_tokens, found.decode_tokens) == (16, 4)
    assert found.prefill_seconds > 0
    assert found.decode_seconds > 0


def test_what_a_library_prints_is_no_answer(tmp_path) -> None:
    script = tmp_path / "chatty.py"
    script.write_text(
        f"import sys; sys.path.append({str(REPOSITORY / 'benchmarks' / 'peers')!r})\n"
        "from protocol import serve\n"
        "def answer(line):\n"
        "    print('{ a table of its own')\n"
        "    return {'asked': line}\n"
        "serve({'engine': 'chatty'}, answer)\n"
    )
    with Peer("chatty", [sys.executable, str(script)], {}) as peer:
        assert peer.about == {"engine": "chatty"} and peer.ask("one") == {"asked": "one"}


def test_a_library_of_quality_that_is_not_there_says_so() -> None:
    if importlib.util.find_spec("gguf") is not None:
        pytest.skip("llama.cpp's libraries are in this environment")
    script = REPOSITORY / "benchmarks" / "peers" / "run_quality.py"
    with Peer("llama.cpp", [sys.executable, str(script), "llama.cpp"], {"model": "."}) as peer:
        assert "llama.cpp is not installed" in peer.about["lacks"]
