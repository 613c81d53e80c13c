"""Train `mobilenet-v3`, the zoo's MobileNetV3-small for CIFAR-10, from scratch, with a residual network as its teacher.

    python -m anybit.zoo.train_mobilenet_v3 --out DIR

Needs the CIFAR-10 training images and `resnet20` of the shared data (ANYBIT_DATA).  The network learns how probable each class is by
the teacher, and the label (arXiv 1503.02531); six passes over the images, which are shifted by up to four pixels and mirrored.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo import augment, training
from anybit.zoo.architectures.mobilenet_v3 import MobileNetV3Cifar
from anybit.zoo.architectures.resnet import resnet
from anybit.zoo.augment import Cifar
from anybit.zoo.data import data_file
from anybit.zoo.train_mobilenet import optimizer
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=2400, lr=0.15, warmup=100, batch=128, save_every=200)
TEMPERATURE = 2.0


def loss(model: nn.Module, step: int, *, data: Cifar, teacher: nn.Module, options: Options) -> Tensor:
    """Cross entropy with the teacher's distribution, at a temperature, and half of that with the label."""
    x, y = augment.batch(data, step, options.batch, options.seed)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = (teacher(x).float() / TEMPERATURE).softmax(-1)
    logits = model(x).float()
    return TEMPERATURE * F.cross_entropy(logits / TEMPERATURE, wanted) + 0.5 * F.cross_entropy(logits, y)


def task(options: Options) -> Task:
    """The training as data; reads the images and the teacher."""
    torch.manual_seed(options.seed)
    data = Cifar.load(options.device)
    model = MobileNetV3Cifar().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = resnet(data_file("resnet_cifar/resnet20.safetensors"), 20)
    teacher = teacher.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = partial(loss, data=data, teacher=teacher, options=options)
    return Task(model, objective, partial(augment.accuracy, data=data), optimizer, clip=5.0, average=0.995)


def main(arguments: list[str] | None = None) -> None:
    training.command(__doc__, DEFAULTS, task, arguments)


if __name__ == "__main__":
    main()
