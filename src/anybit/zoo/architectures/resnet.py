"""The residual networks of He et al. (arXiv 1512.03385, section 4.2) for 32x32 images."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from anybit.errors import CheckpointError


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; where the width doubles, the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 2 if outputs != inputs else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h/stride, w/stride]."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.stride == 2:
            extra = (h.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
        return F.relu(x + h)


class ResNet(nn.Module):
    """The residual network of He et al. (arXiv 1512.03385, section 4.2) for 32x32 images; depth 6n + 2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        widths = (16, 16, 32, 64)
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage in (1, 2, 3):
            blocks = [Block(widths[stage - 1], widths[stage])]
            blocks += [Block(widths[stage], widths[stage]) for _ in range((depth - 2) // 6 - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def stages(self) -> OrderedDict[str, nn.Module]:
        """The parts that run one after another: stem, every block, head."""
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Sequential(self.conv1, self.bn1, nn.ReLU()))
        for stage in (1, 2, 3):
            for index, block in enumerate(cast(nn.Sequential, getattr(self, f"layer{stage}"))):
                parts[f"layer{stage}.{index}"] = block
        parts["linear"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.linear)
        return parts

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] -> logits [n, 10]."""
        for part in self.stages().values():
            x = part(x)
        return x


def resnet(path: Path, depth: int) -> ResNet:
    """A trained network in evaluation mode, its weights without gradients.

    Raises CheckpointError where the file's tensors are not those of this depth.
    """
    from safetensors.torch import load_file

    model = ResNet(depth)
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    wrong = [name for name in (*missing, *unexpected) if not name.endswith("num_batches_tracked")]
    if wrong:
        raise CheckpointError(f"{path} is not a ResNet of depth {depth}: {wrong[0]!r} does not match")
    return model.eval().requires_grad_(False)
