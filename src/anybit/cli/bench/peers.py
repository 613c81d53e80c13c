"""Other engines, each in a process of its own, measured in turns with ours; `benchmarks/README.md` has the protocol."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from anybit.errors import AnybitError


@dataclass(frozen=True)
class PeerKind:
    """A peer: its script in `benchmarks/peers`, whether it runs in `.venv-peers`, and the format it uses by default."""

    script: str
    own_environment: bool
    format: str


PEERS = {
    "llama.cpp": PeerKind("run_llama.py", True, "Q4_0"),
    "transformers": PeerKind("run_transformers.py", False, "bf16"),
}


@dataclass(frozen=True)
class Round:
    """One measurement: tokens and seconds of reading a prompt and of writing."""

    prefill_tokens: int
    prefill_seconds: float
    decode_tokens: int
    decode_seconds: float

    @property
    def prefill(self) -> float:
        """Tokens a second."""
        return self.prefill_tokens / self.prefill_seconds

    @property
    def decode(self) -> float:
        """Tokens a second."""
        return self.decode_tokens / self.decode_seconds


def interpreter(name: str, script: str, own: bool, root: Path | None, environment: str = ".venv-peers") -> list[str]:
    """The interpreter (anybit's own, or that of an environment of the checkout `root`) and the script of the peer `name` there.

    Raises AnybitError outside a checkout (the scripts are not installed), and where `make peers` has not run.
    """
    path = root / "benchmarks" / "peers" / script if root else None
    if root is None or path is None or not path.is_file():
        raise AnybitError(f"{name} is measured from a checkout of the repository, which this is not")
    if own:
        return [sys.executable, str(path)]
    python = root / environment / "bin" / "python"
    if not python.exists():
        raise AnybitError(f"{name} is not installed; `make peers` makes the environment {environment} with it")
    return [str(python), str(path)]


def command(name: str, repository: Path | None) -> list[str]:
    """The interpreter and script of a peer; AnybitError for an unknown one and where it cannot be measured."""
    if name not in PEERS:
        raise AnybitError(f"unknown peer {name!r}; there are {', '.join(PEERS)}")
    return interpreter(name, PEERS[name].script, not PEERS[name].own_environment, repository)


class Peer:
    """A running peer; `about` is what it said of itself. Use as a context, so that it always ends."""

    def __init__(self, name: str, arguments: list[str], job: dict[str, Any]) -> None:
        self.name = name
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [*arguments, json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        try:
            self.about = self._read()
        except BaseException:
            self.close()
            raise

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        self._process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"the peer {self.name} ended: {' / '.join(last) or 'it said nothing'}")

    def ask(self, request: str) -> dict[str, Any]:
        """The answer to one line. RuntimeError with the peer's last words where it died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died before: _read tells how
        return self._read()

    def round(self) -> Round:
        """One measurement of a model."""
        return Round(**self.ask("round"))

    def finish(self) -> None:
        """Let the process end, which takes it a while."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def close(self) -> None:
        """End the process: at the end of its input, or by force after five seconds."""
        self.finish()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
