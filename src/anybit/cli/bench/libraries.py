"""Libraries that do the same work as anybit, each in a process of its own: scripts in `benchmarks/peers` are the other end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anybit.cli.bench.peers import Peer, interpreter
from anybit.errors import AnybitError


@dataclass(frozen=True)
class Found:
    """The running libraries with their versions, and why others are not."""

    running: dict[str, Peer] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Libraries:
    """The libraries of one benchmark. script: in benchmarks/peers, started with the name of one.

    own: measured in anybit's own environment, the others in .venv-peers.  unmeasured: why others are not measured at all.
    """

    script: str
    names: tuple[str, ...]
    own: tuple[str, ...] = ()
    unmeasured: Mapping[str, str] = field(default_factory=dict)

    def wanted(self, text: str) -> tuple[str, ...]:
        """The libraries an option names: "all", or some with commas; AnybitError for one that is unknown."""
        if text.strip() == "all":
            return self.names
        chosen = tuple(name.strip() for name in text.split(",") if name.strip())
        for name in chosen:
            if name not in self.names:
                raise AnybitError(f"unknown library {name!r}; --peers takes all, or {', '.join(self.names)}")
        return chosen

    def command(self, name: str, root: Path | None) -> list[str]:
        """Interpreter, script and library. AnybitError where it cannot be measured, with the way to get it."""
        if name in self.unmeasured:
            raise AnybitError(f"{name} is not measured: {self.unmeasured[name]}")
        return [*interpreter(name, self.script, name in self.own, root), name]

    def start(self, names: Sequence[str], root: Path | None, job: dict[str, Any], stack: ExitStack) -> Found:
        """Start each library once, all at the same time; they end with `stack`. Those that cannot be started are told in `absent`."""
        found = Found()

        def begin(name: str) -> Peer | str:
            try:
                return stack.enter_context(Peer(name, self.command(name, root), job))
            except AnybitError as error:
                return str(error)
            except RuntimeError as error:
                return f"{name} did not start ({error}); `make peers` installs it into .venv-peers"

        with ThreadPoolExecutor(max(1, len(names))) as pool:
            begun = list(pool.map(begin, names))
        for name, peer in zip(names, begun, strict=True):
            if isinstance(peer, str):
                found.absent[name] = peer
            else:
                found.running[name] = peer
                found.versions[name] = str(peer.about["version"])
        for peer in found.running.values():  # ahead of all that wait for one
            stack.callback(peer.finish)
        return found


FORMATS = Libraries(
    "run_formats.py",
    ("pychop", "qtorch", "gfloat", "ml_dtypes", "torch", "cpfloat"),
    own=("torch",),
    unmeasured={
        "cpfloat": "a C library without a Python package (github.com/north-numerical-computing/cpfloat), "
        "which `make peers` does not build; benchmarks/results/2026-11-28-formats.md has times of its loops, written again"
    },
)
"""Libraries that round to number formats."""

MATMUL = Libraries("run_matmul.py", ("ggml", "onnxruntime", "openvino", "torch", "torchao"), own=("torch",))
"""Libraries that multiply with weights of few bits."""
