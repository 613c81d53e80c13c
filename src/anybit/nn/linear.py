"""`QLinear`: nn.Linear with a quantized weight."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from anybit import ops
from anybit.formats import TensorFormat
from anybit.nn.holder import Holder, empty
from anybit.ops import Levels
from anybit.tensors import QTensor, ScaleRule, quantize


class QLinear(Holder):
    """y = x Wᵀ + b with W [out_features, in_features] quantized.

    act: the format activations are quantized to while multiplying (None: exact activations).
    levels: "int8" rounds codebooks such as nf4 to int8 levels while multiplying (`ops.prepack`).
    """

    def __init__(
        self, weight: QTensor, bias: Tensor | None = None, act: TensorFormat | None = None, levels: Levels = "exact"
    ) -> None:
        super().__init__(weight, bias)
        self.levels = levels
        self.out_features, self.in_features = weight.shape
        self.act = act

    @classmethod
    def empty(
        cls,
        out_features: int,
        in_features: int,
        fmt: TensorFormat,
        bias: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Self:
        """A layer of zeros to load a state dict into; dtype is that of the bias."""
        weight = empty((out_features, in_features), fmt, device)
        return cls(weight, torch.zeros(out_features, dtype=dtype, device=device) if bias else None)

    @classmethod
    def from_float(cls, layer: nn.Linear, fmt: TensorFormat, scale_rule: ScaleRule = "absmax") -> Self:
        """The layer rounded to nearest; the methods of `quantize` do better."""
        return cls(quantize(layer.weight.detach(), fmt, scale_rule), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] floating -> [..., out_features] of the same dtype."""
        y: Tensor = ops.matmul(x, self.kernel_weight(), self.bias, self.act, out_dtype=x.dtype)
        return y
