"""What every quantizer gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from anybit.tensors import QTensor

Value = float | int | str | bool


@dataclass(frozen=True)
class Report:
    """What happened, as plain values for the journal and the checkpoint's provenance.

    relative_error: Σ (w - ŵ)² / Σ w², or with statistics Σ (w - ŵ) H (w - ŵ)ᵀ / Σ w H wᵀ, over all rows.
    details: what a method wants remembered (the damping that was needed, dead columns, …).
    """

    method: str
    format: str
    relative_error: float
    details: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantized:
    """A quantized weight and the report on it.

    unrounded: float [N, K] what the codes were rounded from, where that is not the weight itself.
    """

    qtensor: QTensor
    report: Report
    unrounded: Tensor | None = None

    def by(self, method: str) -> Quantized:
        """The same under the name of a method that works through another one."""
        return replace(self, report=replace(self.report, method=method))
