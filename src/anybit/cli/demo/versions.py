"""The versions of the model that the demo makes, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anybit.cli.report import Method

GROUP = "g64"
"""The same groups for all versions, so that only bits and method differ."""


@dataclass(frozen=True)
class Version:
    """A version: its name in tables, its kind, and the recipe that makes it (None for the original)."""

    name: str
    method: Method
    recipe: Mapping[str, Any] | None

    @property
    def folder(self) -> str:
        """The name of its directory."""
        return self.name.lower().replace(" ", "-")


def uniform(method: Method, bits: int) -> Version:
    """Every matrix in the same format, embedding and output too, so that the name says what is stored."""
    spec = f"int{bits}/{GROUP}"
    return Version(f"{method.upper()} {bits} bits", method, {"weights": spec, "embeddings": spec, "method": method})


def mixed(bits: float) -> Version:
    """The budget's choice of bits for every matrix."""
    return Version(f"mixed {bits:g} bits", "mixed", {"bits": bits, "method": "gptq"})


METHODS: tuple[Method, ...] = ("rtn", "gptq")

ORIGINAL = Version("bf16", "original", None)
"""Renamed to what the model is stored as."""

FULL = (
    ORIGINAL,
    *(uniform(method, bits) for bits in (8, 4, 3) for method in METHODS),
    mixed(3.5),
    mixed(2.75),
)

QUICK = (ORIGINAL, uniform("rtn", 4), uniform("gptq", 4), mixed(3.5))

FEW_BITS = 4.0
"""A few-bit version has fewer bits a weight, everything counted."""
