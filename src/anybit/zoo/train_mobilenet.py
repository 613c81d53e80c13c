"""Train `mobilenet`, the zoo's inverted-residual network for CIFAR-10, from scratch.

    python -m anybit.zoo.train_mobilenet --out DIR

Needs the CIFAR-10 training images of the shared data (ANYBIT_DATA).  SGD with Nesterov momentum on softened labels; images are
shifted by up to four pixels and mirrored.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from anybit.zoo import augment, training
from anybit.zoo.architectures.mobilenet import MobileNetCifar
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=1200, lr=0.2, warmup=60, batch=128, save_every=200)


def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """SGD with weight decay on the kernels only."""
    kernels = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": kernels, "weight_decay": 2e-4}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def task(options: Options) -> Task:
    """The training as data; reads the images."""
    torch.manual_seed(options.seed)
    data = augment.Cifar.load(options.device)
    model = MobileNetCifar().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = partial(augment.classification_loss, data=data, options=options, smoothing=0.1)
    return Task(model, loss, partial(augment.accuracy, data=data), optimizer, clip=5.0, average=0.995)


def main(arguments: list[str] | None = None) -> None:
    training.command(__doc__, DEFAULTS, task, arguments)


if __name__ == "__main__":
    main()
