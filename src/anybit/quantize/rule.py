"""How a quantizer's options name the rule of its scales, and what the rule becomes for a format."""

from __future__ import annotations

from typing import Literal

from anybit.formats import Exponent, TensorFormat
from anybit.tensors import POWER_ROUNDINGS, PowerRounding

Power = PowerRounding | Literal[""]
"""How e8m0 scales of the rules "absmax" and "gaussian" become powers of two; "": as `tensors.block_scales` does."""

POWERS: tuple[str, ...] = ("", *POWER_ROUNDINGS)


def power_for(power: Power, fmt: TensorFormat) -> PowerRounding | None:
    """The rounding to powers of two where the scales of `fmt` are such; None elsewhere, as a model holds several formats."""
    return power if power and isinstance(fmt.scale, Exponent) else None
