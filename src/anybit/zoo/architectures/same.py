"""Convolutions with TensorFlow's SAME padding, which is not symmetric where a stride leaves an odd number of pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SameConv2d(nn.Module):
    """Zero padding to ceil(size / stride) outputs, the odd pixel below and to the right; then an nn.Conv2d without padding, `conv`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=bias)
        self.kernel, self.stride = self.conv.kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, ceil(h/stride), ceil(w/stride)]."""
        padding: list[int] = []
        for size, kernel in zip(reversed(x.shape[2:]), reversed(self.kernel), strict=True):
            total = max((-(-size // self.stride) - 1) * self.stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        y: Tensor = self.conv(F.pad(x, padding))
        return y
