"""Quantize in the forward pass, pass gradients straight through in the backward pass (Bengio, Léonard, Courville, 2013, arXiv 1308.3432).

What the forward pass computes is exactly what a checkpoint stores: the same `TensorFormat`, scales rounded to their own format.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from anybit.formats import TensorFormat
from anybit.tensors import quantize


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fmt: TensorFormat) -> Tensor:
        return quantize(x.detach().reshape(x.shape[0], -1), fmt).dequantize(x.dtype).reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def fake_quantize(x: Tensor, fmt: TensorFormat) -> Tensor:
    """x [rows, …] rounded to `fmt` (matrix view: the first dimension against the rest); gradient one everywhere.

    With absmax scales nothing is clipped, so the straight-through estimate needs no mask.
    """
    return _StraightThrough.apply(x, fmt)


class FakeQuantized(nn.Module):
    """A parametrization that shows a module's weight in `fmt` while a full-precision copy is trained."""

    def __init__(self, fmt: TensorFormat) -> None:
        super().__init__()
        self.fmt = fmt

    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantize(weight, self.fmt)


def prepare(model: nn.Module, fmt: TensorFormat) -> list[str]:
    """Train every nn.Linear and nn.Conv2d of `model` in `fmt` from now on; returns their names. `convert` ends it."""
    names = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for name in names:
        parametrize.register_parametrization(model.get_submodule(name), "weight", FakeQuantized(fmt))
    return names


def convert(model: nn.Module) -> None:
    """Replace the trained copies by their quantized values, as plain parameters."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
