"""Train `vit`, the zoo's vision transformer, on CIFAR-10 from scratch.

    python -m anybit.zoo.train_vit --out DIR [--device cuda --precision bf16]

AdamW, softened labels, images shifted and mirrored, in every second step mixed pairwise (mixup, arXiv 1710.09412).  The defaults are
meant for a GPU; a CPU core needs hours.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo import augment, training
from anybit.zoo.architectures.vit import VisionTransformer
from anybit.zoo.augment import Cifar
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=20_000, lr=1e-3, warmup=1000, batch=256, save_every=1000)


def loss(model: nn.Module, step: int, *, data: Cifar, options: Options) -> Tensor:
    """Cross entropy of a step's batch, in every second step of mixed images and labels."""
    x, y = augment.batch(data, step, options.batch, options.seed)
    share = float(np.random.default_rng((options.seed, step, 2)).beta(0.8, 0.8)) if step % 2 else 1.0
    logits = model(share * x + (1 - share) * x.flip(0)).float()
    wanted = share * F.one_hot(y, 10) + (1 - share) * F.one_hot(y.flip(0), 10)
    return F.cross_entropy(logits, wanted.float(), label_smoothing=0.1)


def task(options: Options) -> Task:
    """The training as data; reads the images."""
    torch.manual_seed(options.seed)
    data = Cifar.load(options.device)
    score = partial(augment.accuracy, data=data)
    return Task(VisionTransformer(), partial(loss, data=data, options=options), score, training.adamw, average=0.999)


def main(arguments: list[str] | None = None) -> None:
    args = training.parser(__doc__, DEFAULTS).parse_args(arguments)
    options = training.options(args)
    training.run(task(options), options, args.out)


if __name__ == "__main__":
    main()
