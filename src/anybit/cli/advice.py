"""What is missing on a machine, and how to get it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from anybit.cli.machine import Machine

OPTIONAL = {
    "triton": ("GPU kernels", "pip install triton (on a machine with a GPU)"),
    "matplotlib": ("pictures of `anybit reproduce`", "pip install matplotlib"),
    "transformers": ("loading checkpoints through transformers, and measuring against it", "pip install transformers"),
}
"""Package -> what it is for, how to get it."""


@dataclass(frozen=True)
class Advice:
    """Something that could be better: what is not there, what it would bring, how to get it."""

    missing: str
    matters: str
    remedy: str


def advice(
    machine: Machine, instruction_sets: Sequence[tuple[str, str, bool]], native_error: str | None, peers: bool
) -> list[Advice]:
    """What a person might want to change.

    instruction_sets: (name, needs, usable) of those the native module was built with, best first; native_error: why it could not be
    loaded, None where it was; peers: whether `.venv-peers` is there.
    """
    found = []
    if native_error is not None:
        found.append(
            Advice(
                f"the native module ({native_error})",
                "nothing runs fast: torch references are used where there are any, and the native executor is not there",
                "pip install -e . again with a C++20 compiler (g++ 12 or clang 15), or `make native` in a checkout",
            )
        )
    elif not any(usable and name != "scalar" for name, _, usable in instruction_sets):
        wanted = ", ".join(f"{name} ({needs})" for name, needs, _ in instruction_sets if name != "scalar") or "none"
        found.append(
            Advice(
                f"an instruction set with fast kernels (built: {wanted})",
                "only the scalar kernels run, many times slower",
                "another machine",
            )
        )
    if machine.huge_pages == "never":
        found.append(
            Advice(
                "huge pages (transparent_hugepage is never)",
                "weights are read at the bandwidth of 4 KiB pages, often 1.3 to 1.7 times slower",
                "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
            )
        )
    for package, (purpose, remedy) in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            found.append(Advice(f"the package {package}", purpose, remedy))
    if not peers:
        found.append(
            Advice(
                "llama.cpp to measure against (.venv-peers)",
                "`anybit bench model --peers llama.cpp`",
                "make peers, in a checkout",
            )
        )
    return found
