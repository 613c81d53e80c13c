"""What images a diffusion member makes: the class they show, and how near they are to those of another version of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.errors import AnybitError
from anybit.zoo.architectures.resnet import resnet
from anybit.zoo.architectures.unet import CLASSES, sample
from anybit.zoo.data import data_file
from anybit.zoo.images import DEVIATION, MEAN

Progress = Callable[[str, float, float], None]
COUNT, STEPS, PART = 200, 4, 40
"""Images that are made, steps they are made in, and images at a time."""


def made(model: nn.Module, progress: Progress, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Images [200, 3, 32, 32] in -1..1 and their classes [200], twenty of each; every part has noise of its own seed."""
    labels = torch.arange(COUNT) % len(CLASSES)
    parts = []
    for start in range(0, COUNT, PART):
        parts.append(sample(model, labels[start : start + PART], steps, seed=start))
        progress(f"{start + PART} of {COUNT} images", start + PART, COUNT)
    return torch.cat(parts), labels


def agreement(model: nn.Module, progress: Progress) -> float:
    """Percent of the images that `resnet32` of the shared data takes for the class in their caption."""
    images, labels = made(model, progress)
    return shown(images, labels)


def likeness(model: nn.Module, reference: nn.Module, progress: Progress) -> dict[str, float]:
    """How near the images of a network are to those of another from the same noise: SQNR in dB and SSIM, in four steps and in one."""
    found = {}
    for steps in (STEPS, 1):
        ours, theirs = made(model, progress, steps)[0], made(reference, progress, steps)[0]
        label = "1 step" if steps == 1 else f"{steps} steps"
        found[f"SQNR, {label} (dB)"] = sqnr(theirs, ours)
        found[f"SSIM, {label}"] = ssim(theirs, ours)
    return found


def shown(images: Tensor, labels: Tensor) -> float:
    """Percent of images [n, 3, 32, 32] in -1..1 that `resnet32` takes for their class."""
    judge = resnet(data_file("resnet_cifar/resnet32.safetensors"), 32)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    with torch.no_grad():
        found = torch.cat([judge(part) for part in (((images + 1) / 2 - mean) / deviation).split(50)])
    return 100 * (found.argmax(1) == labels).double().mean().item()


def sqnr(reference: Tensor, found: Tensor) -> float:
    """10 log10(|reference|^2 / |reference - found|^2) in dB; infinite where they are equal."""
    error = (reference - found).double().square().sum()
    return 10 * torch.log10(reference.double().square().sum() / error).item()


def ssim(reference: Tensor, found: Tensor, window: int = 7, span: float = 2.0) -> float:
    """Mean structural similarity (Wang et al., 2004) of images [n, c, h, w] over all square windows, channels apart.

    Uniform windows, sample variances, constants (0.01 span)^2 and (0.03 span)^2, as in scikit-image.  span: of the values.
    Raises AnybitError where the window is larger than the image.
    """
    if window > min(reference.shape[-2:]):
        raise AnybitError(f"a window of {window} pixels is larger than images of {list(reference.shape[-2:])}")
    x, y = reference.double(), found.double()
    unbiased = window**2 / (window**2 - 1)

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, 1)

    mx, my = mean(x), mean(y)
    vx, vy = unbiased * (mean(x * x) - mx * mx), unbiased * (mean(y * y) - my * my)
    both = unbiased * (mean(x * y) - mx * my)
    a, b = (0.01 * span) ** 2, (0.03 * span) ** 2
    value = (2 * mx * my + a) * (2 * both + b) / ((mx * mx + my * my + a) * (vx + vy + b))
    return value.mean().item()
