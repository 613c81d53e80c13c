"""`QLinear`: nn.Linear with a quantized weight."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from anybit import ops
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.nn.holder import PARTS, Holder, empty
from anybit.ops import Levels, StaticActivations, StaticFormat
from anybit.tensors import QTensor, ScaleRule, quantize


class QLinear(Holder):
    """y = x Wᵀ + b with W [out_features, in_features] quantized.

    act: the format activations are quantized to while multiplying (None: exact activations).
    levels: "int8" rounds codebooks such as nf4 to int8 levels while multiplying (`ops.prepack`).
    input_scale: the scale of static activations, kept as the float32 buffer of that name beside the weight's; None for other formats.
    Raises FormatError where a static format has no scale or another format has one, and in `forward` for one that is not finite and
    above 0.
    """

    input_scale: Tensor | None
    kept = (*PARTS, "input_scale")

    def __init__(
        self,
        weight: QTensor,
        bias: Tensor | None = None,
        act: TensorFormat | StaticFormat | None = None,
        levels: Levels = "exact",
        input_scale: Tensor | float | None = None,
    ) -> None:
        super().__init__(weight, bias)
        if isinstance(act, StaticFormat) != (input_scale is not None):
            raise FormatError(
                f"a static format of activations and its input_scale come together; got {act} and {input_scale}"
            )
        self.levels = levels
        self.out_features, self.in_features = weight.shape
        self.act = act
        held = None if input_scale is None else torch.as_tensor(input_scale, dtype=torch.float32).detach().clone()
        self.register_buffer("input_scale", held)
        self._static: StaticActivations | None = None

    @classmethod
    def empty(
        cls,
        out_features: int,
        in_features: int,
        fmt: TensorFormat,
        bias: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        act: TensorFormat | StaticFormat | None = None,
    ) -> Self:
        """A layer of zeros, its static scale too, to load a state dict into; dtype is that of the bias."""
        weight = empty((out_features, in_features), fmt, device)
        scale = torch.zeros((), device=device) if isinstance(act, StaticFormat) else None
        return cls(
            weight, torch.zeros(out_features, dtype=dtype, device=device) if bias else None, act, input_scale=scale
        )

    @classmethod
    def from_float(cls, layer: nn.Linear, fmt: TensorFormat, scale_rule: ScaleRule = "absmax") -> Self:
        """The layer rounded to nearest; the methods of `quantize` do better."""
        return cls(quantize(layer.weight.detach(), fmt, scale_rule), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] floating -> [..., out_features] of the same dtype."""
        y: Tensor = ops.matmul(x, self.kernel_weight(), self.bias, self._activations(), out_dtype=x.dtype)
        return y

    def _activations(self) -> TensorFormat | StaticActivations | None:
        if not isinstance(self.act, StaticFormat):
            return self.act
        if self._static is None:
            assert self.input_scale is not None, "a static format has one"
            self._static = self.act.at(float(self.input_scale))
        return self._static

    def _forget(self) -> None:
        super()._forget()
        self._static = None
