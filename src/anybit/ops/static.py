"""Static activations: one scale for everything that enters a linear layer, found beforehand and kept with the layer's weight.

    int8/static     integers -127 … 127 times the scale (any signed integer of 3 to 8 or 16 bits: its symmetric range)
    e4m3fn/static   floats of up to 8 bits likewise

Dynamic scales are found in x itself: int8/row in each row, int8/tensor in the batch. A static one is not, so a row has the same result in
any batch, and integer-only hardware needs no pass over x before it rounds. What lies beyond the scale saturates: a scale from too little
text clips (SmoothQuant-O3, arXiv 2211.10438; W8A8 with static scales in vLLM and PT2E).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Self

import numpy as np
import torch
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import STATIC, Float, Format, Int, is_static


@dataclass(frozen=True)
class StaticFormat:
    """How numbers are rounded once a scale is known: the nearest value of `element`, times the scale.

    FormatError for an element that is not symmetric about zero or wider than the kernels and floats named above.
    """

    element: Format

    def __post_init__(self) -> None:
        element = self.element
        if isinstance(element, Int):
            fits = element.signed and (3 - element.narrow <= element.bits <= 8 or element.bits == 16)
        else:
            fits = isinstance(element, Float) and element.signed and element.bits <= 8
        if not fits:
            raise FormatError(
                "static activations are signed integers of 3 to 8 or 16 bits, or floats of up to 8 bits, such as int8/static; "
                f"got {element.name}/{STATIC}"
            )

    @classmethod
    def parse(cls, spec: str) -> Self:
        """The format of a spec such as int8/static. FormatError for any other."""
        name, _, block = spec.partition("/")
        if block != STATIC:
            raise FormatError(
                f"{spec!r} is not static; static activations are written ELEMENT/{STATIC}, as in int8/static"
            )
        try:
            return cls(formats.get(name))
        except FormatError as error:
            raise FormatError(f"{spec!r}: {error}") from None

    def __str__(self) -> str:
        return f"{self.element.name}/{STATIC}"

    @property
    def dynamic(self) -> str:
        """The spec of the dynamic format that costs the same, one scale for all rows: what kernels are chosen by."""
        return f"{self.element.name}/tensor"

    @property
    def largest(self) -> float:
        """The largest value of the element that is used; its negative is the smallest."""
        return float(self.element.max)

    def scale_for(self, top: float) -> float:
        """The scale (a float32 number) at which the magnitude `top` is the largest value; 1 where all inputs were zero.

        FormatError where `top` is negative, infinite or NaN.
        """
        if not (isfinite(top) and top >= 0):
            raise FormatError(f"a static scale is made of a finite magnitude; got {top}")
        scale = np.float32(top) / np.float32(self.largest)
        return float(max(scale, np.finfo(np.float32).tiny)) if top else 1.0

    def at(self, scale: float) -> StaticActivations:
        """Activations of this format with a scale; FormatError as of `StaticActivations`."""
        return StaticActivations(self, scale)


@dataclass(frozen=True)
class StaticActivations:
    """A static format and its scale, what `ops.matmul(act=)` takes. FormatError unless the scale is finite and above 0."""

    format: StaticFormat
    scale: float

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            held = np.float32(self.scale)
        if not (np.isfinite(held) and held > 0):
            raise FormatError(f"a static scale of activations is finite and above 0; got {self.scale}")
        object.__setattr__(self, "scale", float(held))

    def round(self, x: Tensor) -> Tensor:
        """x [..., k] as the values that its rounded form stands for, float32; a row with NaN or infinity becomes NaN, as nothing in it can
        be trusted.
        """
        values = x.float()
        steps = values / torch.tensor(self.scale)
        if isinstance(self.format.element, Int):
            steps = steps.round().clamp(-self.format.largest, self.format.largest)
        else:
            steps = self.format.element.round(steps)
        finite = values.isfinite().all(-1, keepdim=True)
        return torch.where(finite, steps * self.scale, torch.nan)


def activations(spec: str) -> StaticFormat | formats.TensorFormat:
    """The format of a spec of activations, static or not. FormatError where it is neither."""
    return StaticFormat.parse(spec) if is_static(spec) else formats.TensorFormat.parse(spec)
