"""Train `unet`, the zoo's text-conditioned diffusion U-Net, on CIFAR-10 from scratch.

    python -m anybit.zoo.train_unet --out DIR [--device cuda --precision bf16]

The network learns the noise in images at times spread evenly over 0..1, with the caption of the image's class.  The defaults are meant
for a GPU; a CPU core needs days.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from anybit.zoo import augment, training
from anybit.zoo.architectures.unet import TextUNet, denoising_loss, noise_error
from anybit.zoo.augment import Cifar
from anybit.zoo.images import DEVIATION, MEAN
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=40_000, lr=4e-4, warmup=1000, batch=128, save_every=2000)


def loss(model: nn.Module, step: int, *, data: Cifar, options: Options) -> Tensor:
    """The denoising loss of a step's images, shifted and mirrored."""
    x, y = augment.batch(data, step, options.batch, options.seed)
    mean, deviation = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    generator = torch.Generator().manual_seed((options.seed << 32) + step)
    t = (torch.rand((), generator=generator) + torch.arange(len(x)) / len(x)) % 1
    noise = torch.randn(x.shape, generator=generator)
    return denoising_loss(model, 2 * (x * deviation + mean) - 1, y, t.to(x.device), noise.to(x.device))


def score(model: nn.Module) -> dict[str, float]:
    """The member's metric."""
    return {"noise_error": noise_error(model.cpu(), None)}


def task(options: Options) -> Task:
    """The training as data; reads the images."""
    torch.manual_seed(options.seed)
    data = Cifar.load(options.device)
    return Task(TextUNet(), partial(loss, data=data, options=options), score, training.adamw, average=0.9995)


def main(arguments: list[str] | None = None) -> None:
    args = training.parser(__doc__, DEFAULTS).parse_args(arguments)
    options = training.options(args)
    training.run(task(options), options, args.out)


if __name__ == "__main__":
    main()
