"""MobileNets: V1 (Howard et al., arXiv 1704.04861) and V2 (Sandler et al., arXiv 1801.04381) for 224x224 photographs, and an
inverted-residual network of V2's blocks for 32x32 images.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo.architectures.same import SameConv2d

Setting = tuple[int, int, int, int]
"""expansion, output channels, blocks, stride of the first one."""

V2_SETTINGS: tuple[Setting, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
CIFAR_SETTINGS: tuple[Setting, ...] = (
    (1, 16, 1, 2),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 2, 2),
    (6, 96, 1, 1),
)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, 1x1 projection without activation; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [*conv_bn(inputs, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(), *conv_bn(hidden, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h/stride, w/stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class MobileNetCifar(nn.Module):
    """The zoo's own: about a third of MobileNetV2's width, a stem without stride, ten classes of normalised 32x32 images."""

    def __init__(self, settings: tuple[Setting, ...] = CIFAR_SETTINGS, head: int = 256, classes: int = 10) -> None:
        super().__init__()
        width = 16
        self.stem = nn.Sequential(*conv_bn(3, width, 3), nn.ReLU6())
        blocks = []
        for expansion, outputs, count, stride in settings:
            for i in range(count):
                blocks.append(InvertedResidual(width, outputs, expansion, stride if i == 0 else 1))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*conv_bn(width, head, 1), nn.ReLU6())
        self.classifier = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] -> logits [n, classes]."""
        y: Tensor = self.classifier(self.head(self.blocks(self.stem(x))).mean((2, 3)))
        return y


class MobileNetV1(nn.Module):
    """Depthwise-separable convolutions at `alpha` times the width of V1, 1,000 classes; input [n, 3, 224, 224] in -1..1.

    Padding is TensorFlow's SAME, the batch norms' epsilon 1e-3.
    """

    WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    STRIDED = (2, 4, 6, 12)

    def __init__(self, alpha: float = 0.75, classes: int = 1000) -> None:
        super().__init__()
        width = int(32 * alpha)
        self.conv1 = SameConv2d(3, width, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        for i, wanted in enumerate(self.WIDTHS, 1):
            outputs, stride = int(wanted * alpha), 2 if i in self.STRIDED else 1
            block: dict[str, nn.Module] = {
                "dw": SameConv2d(width, width, 3, stride, groups=width, bias=False),
                "dw_bn": nn.BatchNorm2d(width, eps=1e-3),
                "pw": nn.Conv2d(width, outputs, 1, bias=False),
                "pw_bn": nn.BatchNorm2d(outputs, eps=1e-3),
            }
            self.add_module(f"block{i}", nn.ModuleDict(block))
            width = outputs
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, h, w] -> logits [n, classes]."""
        x = F.relu6(self.bn1(self.conv1(x)))
        for i in range(1, len(self.WIDTHS) + 1):
            block = cast(nn.ModuleDict, self.get_submodule(f"block{i}"))
            x = F.relu6(block["dw_bn"](block["dw"](x)))
            x = F.relu6(block["pw_bn"](block["pw"](x)))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class MobileNetV2(nn.Module):
    """MobileNetV2 at full width with batch norms folded into biases; input in -1..1, SAME padding."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        width, number = 32, 0
        self.stem = SameConv2d(3, width, 3, 2)
        for expansion, outputs, count, stride in V2_SETTINGS:
            for i in range(count):
                hidden = width * expansion
                block: dict[str, nn.Module] = {"expand": nn.Conv2d(width, hidden, 1)} if expansion > 1 else {}
                block["dw"] = SameConv2d(hidden, hidden, 3, stride if i == 0 else 1, groups=hidden)
                block["project"] = nn.Conv2d(hidden, outputs, 1)
                self.add_module(f"b{number}", nn.ModuleDict(block))
                width, number = outputs, number + 1
        self.blocks = number
        self.head = nn.Conv2d(width, 1280, 1)
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, h, w] -> logits [n, classes]."""
        x = F.relu6(self.stem(x))
        for i in range(self.blocks):
            block = cast(nn.ModuleDict, self.get_submodule(f"b{i}"))
            h = F.relu6(block["expand"](x)) if "expand" in block else x
            h = block["project"](F.relu6(block["dw"](h)))
            x = x + h if h.shape == x.shape else h
        y: Tensor = self.fc(F.relu6(self.head(x)).mean((2, 3)))
        return y
