"""`QConv2d`: nn.Conv2d with a quantized weight, as a matrix product over unfolded patches."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit import ops
from anybit.formats import TensorFormat
from anybit.formats.native import empty
from anybit.nn.holder import Holder
from anybit.ops import native
from anybit.tensors import QTensor, ScaleRule, quantize

Pair = tuple[int, int]


class QConv2d(Holder):
    """2-D convolution with W [out, in/groups, kh, kw] quantized over its matrix view [out, in/groups·kh·kw].

    Ungrouped convolutions multiply the packed weight with unfolded patches. Grouped and depthwise ones, whose rows are too short
    for that to pay, convolve with the dequantized weight.
    """

    def __init__(
        self,
        weight: QTensor,
        bias: Tensor | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
        act: TensorFormat | None = None,
    ) -> None:
        super().__init__(weight, bias)
        self.stride, self.padding, self.dilation, self.groups, self.act = stride, padding, dilation, groups, act

    @classmethod
    def like(cls, layer: nn.Conv2d, weight: QTensor, act: TensorFormat | None = None) -> Self:
        """The geometry and bias of `layer` with another weight. ValueError for padding modes other than zeros."""
        dilation, padding, stride = geometry(layer)
        return cls(weight, layer.bias, stride=stride, padding=padding, dilation=dilation, groups=layer.groups, act=act)

    @classmethod
    def from_float(cls, layer: nn.Conv2d, fmt: TensorFormat, scale_rule: ScaleRule = "absmax") -> Self:
        """The layer rounded to nearest."""
        return cls.like(layer, quantize(layer.weight.detach(), fmt, scale_rule))

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, in, height, width] -> [batch, out, height', width'] of the same dtype."""
        if self.groups > 1:
            weight = self.weight.dequantize(x.dtype)
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        kernel = self.shape[2:]
        rows = patches(x, kernel, self.dilation, self.padding, self.stride)
        y: Tensor = ops.matmul(rows, self.kernel_weight(), self.bias, self.act, out_dtype=x.dtype)
        sizes = positions(x, kernel, self.dilation, self.padding, self.stride)
        return y.transpose(1, 2).reshape(x.shape[0], self.shape[0], *sizes)


def patches(x: Tensor, kernel: tuple[int, ...], dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """What a convolution multiplies: patches [batch, positions, in·kh·kw] of x [batch, in, height, width], zeros beyond the edges.

    The native module writes them at once, 8 times as fast as torch unfolds and transposes; it has no gradients.
    """
    module = native.load()
    learning = torch.is_grad_enabled() and x.requires_grad
    if module is None or learning or x.dtype != torch.float32 or x.device.type != "cpu":
        return F.unfold(x, kernel, dilation, padding, stride).transpose(1, 2).contiguous()
    down, across = positions(x, kernel, dilation, padding, stride)
    if down < 1 or across < 1:
        raise ValueError(
            f"a kernel of {tuple(kernel)} is larger than images of {tuple(x.shape[2:])} with padding {padding}"
        )
    shape = x.shape[0], down * across, x.shape[1] * kernel[0] * kernel[1]
    out = empty(math.prod(shape), np.float32).reshape(shape)
    module.patches(x.detach().contiguous().numpy(), kernel, dilation, padding, stride, out)
    return torch.from_numpy(out)


def positions(x: Tensor, kernel: tuple[int, ...], dilation: Pair, padding: Pair, stride: Pair) -> Pair:
    """(height, width) of what a convolution of x [batch, in, height, width] gives."""
    down, across = (
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
    )
    return down, across


def geometry(layer: nn.Conv2d) -> tuple[Pair, Pair, Pair]:
    """(dilation, padding, stride) as pairs of numbers. ValueError for padding that is not zeros or not symmetric."""
    if layer.padding_mode != "zeros":
        raise ValueError(f"only zero padding is supported in quantized convolutions; got {layer.padding_mode!r}")
    dilation, stride = _pair(layer.dilation), _pair(layer.stride)
    if not isinstance(layer.padding, str):
        return dilation, _pair(layer.padding), stride
    if layer.padding == "valid":
        return dilation, (0, 0), stride
    total = [d * (k - 1) for d, k in zip(dilation, layer.kernel_size, strict=True)]
    if any(t % 2 for t in total):
        raise ValueError(
            f"padding 'same' of a kernel {layer.kernel_size} is not symmetric; give the padding as numbers"
        )
    return dilation, (total[0] // 2, total[1] // 2), stride


def _pair(value: tuple[int, ...]) -> Pair:
    return value[0], value[1]
