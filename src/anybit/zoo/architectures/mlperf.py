"""Two reference networks of MLPerf Tiny (Banbury et al., arXiv 2106.07597): image classification and keyword spotting."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo.architectures.same import SameConv2d


class Stage(nn.Module):
    """Two 3x3 convolutions and a shortcut, a strided 1x1 convolution where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = SameConv2d(inputs, outputs, 3, stride)
        self.conv2 = SameConv2d(outputs, outputs, 3)
        self.short = nn.Identity() if stride == 1 else SameConv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h/stride, w/stride]."""
        return F.relu(self.short(x) + self.conv2(F.relu(self.conv1(x))))


class ResNet8(nn.Module):
    """Image classification; batch norms folded, input 0..255 as it is. widths: of the three stages."""

    def __init__(self, widths: tuple[int, int, int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.conv1 = SameConv2d(3, widths[0], 3)
        self.s1 = Stage(widths[0], widths[0])
        self.s2 = Stage(widths[0], widths[1])
        self.s3 = Stage(widths[1], widths[2])
        self.fc = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] in 0..255 -> logits [n, classes]."""
        x = self.s3(self.s2(self.s1(F.relu(self.conv1(x)))))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class Separable(nn.Module):
    """Depthwise 3x3 and 1x1 convolution, each with bias, batch norm and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dw = SameConv2d(width, width, 3, groups=width)
        self.dw_bn = nn.BatchNorm2d(width, eps=1e-3)
        self.pw = nn.Conv2d(width, width, 1)
        self.pw_bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, h, w] -> the same shape."""
        return F.relu(self.pw_bn(self.pw(F.relu(self.dw_bn(self.dw(x))))))


class DSCNN(nn.Module):
    """Keyword spotting on features [n, 1, 49, 10]: a strided 10x4 convolution and four separable ones of 64 channels."""

    def __init__(self, width: int = 64, classes: int = 12) -> None:
        super().__init__()
        self.conv1 = SameConv2d(1, width, (10, 4), 2)
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        for i in range(1, 5):
            self.add_module(f"block{i}", Separable(width))
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 1, 49, 10] -> logits [n, classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = self.get_submodule(f"block{i}")(x)
        y: Tensor = self.fc(x.mean((2, 3)))
        return y
