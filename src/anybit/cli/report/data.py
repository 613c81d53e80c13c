"""What the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Method = Literal["original", "rtn", "gptq", "mixed"]


@dataclass(frozen=True)
class LayerBits:
    """How one weight is stored: its checkpoint name, format spec, bits a weight with scales, and parameters."""

    name: str
    spec: str
    bits: float
    parameters: int

    @property
    def block(self) -> int | None:
        """The number of the decoder block it stands in, the first number among the parts of its name; None outside the blocks."""
        return next((int(part) for part in self.name.split(".") if part.isdigit()), None)

    @property
    def part(self) -> str:
        """Its role within a block: the part of the name that distinguishes it, such as `q_proj`."""
        return self.name.removesuffix(".weight").rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Variant:
    """One version of the model, measured. Sizes in bytes, speeds in tokens a second (None where they were not measured)."""

    name: str
    method: Method
    perplexity: float
    bytes: int
    bits_per_weight: float
    prefill: float | None
    decode: float | None
    layers: tuple[LayerBits, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole run. `facts` are label and value pairs on the model, the text, the machine and the protocol."""

    model: str
    variants: tuple[Variant, ...]
    best: str
    prompt: str
    story: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> Variant:
        """The version that the others are compared with: the model as it was."""
        return next(variant for variant in self.variants if variant.method == "original")

    @property
    def chosen(self) -> Variant:
        """The few-bit version that wrote the story."""
        return next(variant for variant in self.variants if variant.name == self.best)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)
