"""How large the inputs of a layer are, and the static scale that fits them.

absmax   the largest magnitude seen is the largest value: nothing of the calibration text saturates
mse      the scale of least squared rounding error, between that and a 32nd of it: a few large values may saturate so that the many others
         get finer steps

Magnitudes are counted in 16 bins an octave, so any number of tokens takes the same memory and sums do not depend on their order.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.ops import StaticFormat

StaticRule = Literal["absmax", "mse"]

_SHIFT = 19
"""Bits of a float32 below the ones that tell bins apart: its 8 of exponent and 4 of the mantissa are left."""
_POINTS = 8
"""Of a bin, at which errors are looked at."""
_STEPS, _OCTAVES = 8, 5
"""Scales tried an octave, and octaves."""


class Magnitudes:
    """The largest |x| and, for the rule "mse", how often each magnitude occurred. `name` appears in errors."""

    def __init__(self, rule: StaticRule = "absmax", *, name: str = "layer") -> None:
        self.rule, self.name = rule, name
        self.largest = 0.0
        self._counts = torch.zeros(1 << (31 - _SHIFT), dtype=torch.int64)

    def add(self, x: Tensor) -> None:
        """Take in inputs [..., k] of any float dtype. RecipeError where a value is NaN or infinite."""
        if not x.numel():
            return
        size = x.detach().float().abs()
        top = float(size.amax())
        if not top < float("inf"):
            raise RecipeError(
                f"{self.name}: the calibration inputs hold NaN or infinite values; check the model and the text"
            )
        self.largest = max(self.largest, top)
        if self.rule == "mse":
            bins = size.reshape(-1).view(torch.int32) >> _SHIFT
            self._counts += torch.bincount(bins, minlength=len(self._counts))

    def scale(self, fmt: StaticFormat) -> float:
        """The scale by the rule; 1 where all inputs were zero."""
        widest = fmt.scale_for(self.largest)
        if self.rule == "absmax" or not self.largest:
            return widest
        seen = self._counts.nonzero()
        inside = (2 * torch.arange(_POINTS) + 1) << (_SHIFT - 4)
        points = ((seen << _SHIFT) + inside).to(torch.int32).view(torch.float32).clamp(max=self.largest)
        weights = self._counts[seen].double()
        tried = [widest * 2 ** (-step / _STEPS) for step in range(_STEPS * _OCTAVES + 1)]

        def error(scale: float) -> float:
            off = fmt.at(scale).round(points).double() - points.double()
            return float((weights * off.square()).sum())

        return min((scale for scale in tried if scale > torch.finfo(torch.float32).tiny), key=error, default=widest)
