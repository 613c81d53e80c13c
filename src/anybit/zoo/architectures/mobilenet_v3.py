"""MobileNetV3-small (Howard et al., arXiv 1905.02244, table 2) for 32x32 images: inverted residuals with squeeze and excitation and
hard swish.

The strides of the first two layers are 1 instead of 2, as images are 32 wide instead of 224; the block behind them keeps its 2.
Channels are those of the paper, its last layer of 1,024 is left out: behind it ten classes need no more than the 576 of the trunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from anybit.zoo.architectures.mobilenet import conv_bn


@dataclass(frozen=True)
class Row:
    """A row of the paper's table 2.

    kernel: side of the depthwise convolution.  hidden: channels it works on.  outputs: channels behind the projection.
    squeeze: whether channels are weighed.  hard: hard swish, else ReLU.  stride: of the depthwise convolution.
    """

    kernel: int
    hidden: int
    outputs: int
    squeeze: bool
    hard: bool
    stride: int


SMALL: tuple[Row, ...] = (
    Row(3, 16, 16, True, False, 1),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
STEM, HEAD = 16, 576


def multiple_of_eight(channels: float) -> int:
    """The nearest multiple of 8, but no less than nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcitation(nn.Module):
    """Channels times a hard sigmoid of two small layers of their means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = multiple_of_eight(channels / 4)
        self.reduce = nn.Conv2d(channels, narrow, 1)
        self.expand = nn.Conv2d(narrow, channels, 1)
        self.relu = nn.ReLU()
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> the same shape."""
        weight: Tensor = self.gate(self.expand(self.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * weight


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze and excitation, 1x1 projection; added to the input where the shapes agree."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        act = nn.Hardswish if row.hard else nn.ReLU
        layers: list[nn.Module] = []
        if row.hidden != inputs:
            layers += [*conv_bn(inputs, row.hidden, 1), act()]
        layers += [*conv_bn(row.hidden, row.hidden, row.kernel, row.stride, row.hidden), act()]
        if row.squeeze:
            layers.append(SqueezeExcitation(row.hidden))
        self.layers = nn.Sequential(*layers, *conv_bn(row.hidden, row.outputs, 1))
        self.adds = row.stride == 1 and inputs == row.outputs

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h/stride, w/stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class MobileNetV3Cifar(nn.Module):
    """The zoo's own, ten classes of normalised 32x32 images."""

    def __init__(self, rows: tuple[Row, ...] = SMALL, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, STEM, 3), nn.Hardswish())
        widths = [STEM, *(row.outputs for row in rows)]
        self.blocks = nn.Sequential(*(InvertedResidual(width, row) for width, row in zip(widths, rows, strict=False)))
        self.head = nn.Sequential(*conv_bn(widths[-1], HEAD, 1), nn.Hardswish())
        self.classifier = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] -> logits [n, classes]."""
        y: Tensor = self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))
        return y
