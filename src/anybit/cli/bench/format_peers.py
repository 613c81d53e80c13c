"""The libraries that round as anybit does, each in a process of its own: `benchmarks/peers/run_formats.py` is the other end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anybit.cli.bench.peers import Peer
from anybit.errors import AnybitError

LIBRARIES = ("pychop", "qtorch", "gfloat", "ml_dtypes", "torch", "cpfloat")
OWN = ("torch",)
"""Measured in anybit's own environment, the others in .venv-peers."""

ABSENT = {
    "cpfloat": "a C library without a Python package (github.com/north-numerical-computing/cpfloat), which `make peers` does not build"
}


@dataclass(frozen=True)
class Found:
    """The running libraries with their versions, and why others are not."""

    running: dict[str, Peer]
    versions: dict[str, str]
    absent: dict[str, str]


def wanted(text: str) -> tuple[str, ...]:
    """The libraries an option names: "all", or some with commas; AnybitError for one that is unknown."""
    if text.strip() == "all":
        return LIBRARIES
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in LIBRARIES:
            raise AnybitError(f"unknown library {name!r}; --peers takes all, or {', '.join(LIBRARIES)}")
    return names


def command(name: str, root: Path | None) -> list[str]:
    """Interpreter, script and library. AnybitError where it cannot be measured, with the way to get it."""
    if name in ABSENT:
        raise AnybitError(f"{name} is not measured: {ABSENT[name]}")
    script = root / "benchmarks" / "peers" / "run_formats.py" if root else None
    if root is None or script is None or not script.is_file():
        raise AnybitError(f"{name} is measured from a checkout of the repository, which this is not")
    interpreter = Path(sys.executable) if name in OWN else root / ".venv-peers" / "bin" / "python"
    if not interpreter.exists():
        raise AnybitError(f"{name} is not installed; `make peers` makes the environment .venv-peers with it")
    return [str(interpreter), str(script), name]


def start(names: Sequence[str], root: Path | None, job: dict[str, Any], stack: ExitStack) -> Found:
    """Start each library once; it ends with `stack`. Those that cannot be started are told in `absent`."""
    found = Found({}, {}, {})
    for name in names:
        try:
            peer = stack.enter_context(Peer(name, command(name, root), job))
        except AnybitError as error:
            found.absent[name] = str(error)
        except RuntimeError as error:
            found.absent[name] = f"{name} did not start ({error}); `make peers` installs it into .venv-peers"
        else:
            found.running[name] = peer
            found.versions[name] = str(peer.about["version"])
    return found
