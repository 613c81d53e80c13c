"""Train `unet`, the zoo's text-conditioned diffusion U-Net, on CIFAR-10 from scratch.

    python -m anybit.zoo.train_unet --out DIR

The network learns to see the image in noise at the four times that sampling in one to four steps calls it at, given the caption of the
image's class.  What it sees is compared with the image by pixels, by what `resnet20` of the shared data sees in both (a perceptual
loss, arXiv 1603.08155), and by the class that network finds in it.  `resnet32`, which takes no part, is the judge.

While it is trained, the channels in which the first token of a caption is an outlier are divided by its size on their way to the
cross-attentions, so that Adam's steps are no larger there; in the exported weights, keys and values have taken the division over.

The defaults are meant for a CPU core and an hour; longer runs give better images.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo import augment, training
from anybit.zoo.architectures.resnet import ResNet, resnet
from anybit.zoo.architectures.unet import (
    OUTLIER,
    TIMES,
    Level,
    TextEncoder,
    TextUNet,
    captions,
    levels,
    outlying,
    predicted,
)
from anybit.zoo.augment import Cifar
from anybit.zoo.data import data_file
from anybit.zoo.images import DEVIATION, MEAN
from anybit.zoo.pictures import agreement
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=2000, lr=1e-3, warmup=50, batch=32, save_every=400)
PERCEPTION, CLASS = 0.1, 0.1
"""Weights of the perceptual loss and of the class."""


def loss(model: nn.Module, step: int, *, data: Cifar, network: ResNet, options: Options) -> Tensor:
    """The loss of a step's images, shifted and mirrored, a quarter of them at each time."""
    x, y = augment.batch(data, step, options.batch, options.seed)
    mean, deviation = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    generator = torch.Generator().manual_seed((options.seed << 32) + step)
    t = torch.tensor(TIMES).repeat(-(-len(x) // len(TIMES)))[: len(x)].to(x.device)
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    image = 2 * (x * deviation + mean) - 1
    signal, sigma = levels(t)
    seen = predicted(model, signal * image + sigma * noise, t, captions(y).to(x.device))
    with torch.no_grad():
        wanted, _ = _stages(network, x)
    found, logits = _stages(network, ((seen + 1) / 2 - mean) / deviation)
    perception = torch.stack(
        [F.mse_loss(a, b) / b.var() for a, b in zip(found, wanted, strict=True)],
    ).mean()
    return F.mse_loss(seen, image) + PERCEPTION * perception + CLASS * F.cross_entropy(logits, y)


def _stages(network: ResNet, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What the network holds behind its three stages, and its logits."""
    held = []
    for name, part in network.stages().items():
        x = part(x)
        if name in ("layer1.2", "layer2.2", "layer3.2"):
            held.append(x)
    return held, x


def _scales(text: TextEncoder) -> Tensor:
    """What the channels of an encoded caption are multiplied by, [width]; powers of two."""
    return torch.where(outlying(len(text.begin)), 1 / OUTLIER, 1.0).to(text.begin.device)


def _balanced(text: nn.Module, inputs: tuple[Tensor, ...], words: Tensor) -> Tensor:
    return words * _scales(cast(TextEncoder, text))


def folded(model: nn.Module) -> nn.Module:
    """A copy whose keys and values do what the hook on its text encoder did."""
    model = copy.deepcopy(model)
    assert isinstance(model, TextUNet)
    model.text._forward_hooks.clear()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, Level) and part.cross is not None:
                for linear in (part.cross.k, part.cross.v):
                    linear.weight.mul_(_scales(model.text))
    return model


def score(model: nn.Module) -> dict[str, float]:
    """The member's metric."""
    return {"agreement": agreement(model.cpu(), lambda *_: None)}


def task(options: Options) -> Task:
    """The training as data; reads the images and the judge of the perceptual loss."""
    torch.manual_seed(options.seed)
    data = Cifar.load(options.device)
    network = resnet(data_file("resnet_cifar/resnet20.safetensors"), 20).to(options.device)
    model = TextUNet()
    model.text.register_forward_hook(_balanced)
    last = partial(loss, data=data, network=network, options=options)
    return Task(model, last, score, partial(training.adamw, decay=0.01), average=0.995, member=folded)


def main(arguments: list[str] | None = None) -> None:
    training.command(__doc__, DEFAULTS, task, arguments)


if __name__ == "__main__":
    main()
