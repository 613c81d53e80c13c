"""Train `vit`, the zoo's vision transformer, on CIFAR-10 from scratch, with a residual network as its teacher.

    python -m anybit.zoo.train_vit --out DIR

Made for one CPU core and an hour, in which a plain training would see four epochs:

* At the start, heads look at neighbouring patches, as convolutions do (structured initialisation, arXiv 2404.01139), and the patch
  embedding is white.
* The teacher (`resnet20` of the shared data) says for every patch what its own three stages hold there, which the tokens behind blocks
  2, 4 and 6 predict linearly (locality guidance, arXiv 2207.10026), and how probable each class is (arXiv 1503.02531).
* For the first two fifths of the steps the network sees two windows of 4x4 patches of each image, then one of 6x6, in the last quarter all.

Muon moves the matrices of the blocks, AdamW the rest.  Images are shifted and mirrored.
"""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo import augment, training
from anybit.zoo.architectures.resnet import ResNet, resnet
from anybit.zoo.architectures.vit import Block, VisionTransformer
from anybit.zoo.augment import Cifar
from anybit.zoo.data import data_file
from anybit.zoo.images import normalise
from anybit.zoo.muon import MuonAdamW
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=1600, lr=5e-3, warmup=60, batch=128, save_every=200)
STAGES = ((0.42, 4, 2), (0.75, 6, 1), (1.0, 8, 1))
"""Until which share of the steps, the side of a window in patches, windows an image."""
GUIDED = {1: 256, 3: 128, 5: 64}
"""Blocks whose tokens predict a stage of the teacher, and the numbers a patch has there."""
OFFSETS = ((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1), (-1, 1), (1, -1))
"""Rows and columns from a patch to the one that a head looks at to begin with; heads take turns."""
PEAK = 4.0
"""Logit of the patch a head looks at, an axis."""
TEMPERATURE = 2.0


class Student(nn.Module):
    """The network with the linear layers that predict the teacher, which are not part of the member."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = VisionTransformer()
        self.guides = nn.ModuleList(nn.Linear(192, size) for size in GUIDED.values())


class Teacher:
    """The residual network: what its stages hold in each of 8x8 patches, standardised, and its logits."""

    def __init__(self, network: ResNet, images: Tensor) -> None:
        self.network = network.to(images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        stages, _ = self._run(images)
        self.mean = [x.mean((0, 1)) for x in stages]
        self.deviation = [x.std((0, 1)) + 1e-3 for x in stages]

    def __call__(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """[n, 3, 32, 32] normalised -> per stage [n, 64, numbers]; logits [n, 10]."""
        stages, logits = self._run(images)
        return [(x - m) / d for x, m, d in zip(stages, self.mean, self.deviation, strict=True)], logits

    @torch.no_grad()
    def _run(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = images.contiguous(memory_format=torch.channels_last)
        ends: list[Tensor] = []
        stage = ""
        for name, part in self.network.stages().items():
            if stage.startswith("layer") and name[:6] != stage:
                ends.append(x)
            stage = name[:6]
            x = part(x)
        # a patch holds all pixels of it
        return [F.pixel_unshuffle(e, e.shape[-1] // 8).flatten(2).transpose(1, 2) for e in ends], x


def window(step: int, options: Options) -> tuple[int, int]:
    """The side of the windows of a step, in patches, and how many an image."""
    return next((side, count) for until, side, count in STAGES if step < until * options.end or until == 1.0)


def patches(step: int, options: Options) -> Tensor:
    """Numbers [windows * batch, side^2] of the patches that are looked at; the windows of an image lie `batch` apart."""
    side, count = window(step, options)
    corner = np.random.default_rng((options.seed, step, 3)).integers(0, 9 - side, (2, count * options.batch, 1, 1))
    along = np.arange(side)
    numbers = 8 * (corner[0] + along[:, None]) + corner[1] + along
    return torch.from_numpy(numbers.reshape(count * options.batch, side * side))


def loss(model: nn.Module, step: int, *, data: Cifar, teacher: Teacher, options: Options) -> Tensor:
    """Cross entropy with the label and with the teacher's distribution, and the squared errors of the teacher's stages."""
    student = cast(Student, model)
    x, y = augment.batch(data, step, options.batch, options.seed)
    stages, wanted = teacher(x)
    at = patches(step, options).to(x.device)
    many = len(at) // len(x)

    def seen(values: Tensor) -> Tensor:
        return values.repeat(many, 1, 1).gather(1, at[..., None].expand(-1, -1, values.shape[-1]))

    states = student.vit.states(seen(student.vit.tokens(x)))
    logits = student.vit.head(states[-1].mean(1)).float()
    errors = [
        F.mse_loss(guide(states[block]).float(), seen(stage))
        for guide, block, stage in zip(student.guides, GUIDED, stages, strict=True)
    ]
    soft = F.cross_entropy(logits / TEMPERATURE, (wanted / TEMPERATURE).softmax(-1).repeat(many, 1))
    hard = F.cross_entropy(logits, y.repeat(many))
    return 0.4 * errors[0] + 0.4 * errors[1] + errors[2] + TEMPERATURE * soft + 0.5 * hard


@torch.no_grad()
def start(vit: VisionTransformer, images: Tensor) -> None:
    """Set the weights to begin with; images [n, 3, 32, 32] normalised, whose patches are made white.

    The first 32 channels hold the position (cosines and sines of eight frequencies an axis), the others the patch.  Query and key of a
    head meet at the patch one of `OFFSETS` away: turning the angles of the position by an offset is a linear map.  Blocks add nothing
    yet.
    """
    cells = F.unfold(images, 4, stride=4).transpose(1, 2).reshape(-1, 48)
    values, vectors = torch.linalg.eigh(torch.cov(cells.T))
    white = vectors * (values + 0.05).rsqrt()
    spread = torch.linalg.qr(torch.randn(160, 48)).Q * math.sqrt(160 / 48) * 0.75
    vit.embed.weight.zero_()
    vit.embed.weight[32:] = (spread @ white.T.cpu()).view(160, 3, 4, 4)
    nn.init.zeros_(cast(Tensor, vit.embed.bias))
    turn = math.pi / 8 * torch.arange(1, 9)
    axis = torch.arange(8)[:, None] * turn
    waves = torch.stack([axis.cos(), axis.sin()], -1).flatten(1)
    vit.positions.zero_()
    vit.positions[:, :16], vit.positions[:, 16:32] = waves.repeat_interleave(8, 0), waves.repeat(8, 1)
    strength = torch.exp(-(torch.arange(1, 9) ** 2) / 32.0)
    square = vit.tokens(images.cpu()).square().mean()  # which the norm divides by
    gain = (strength * PEAK * 8 * square / strength.sum()).sqrt()
    head = 0
    for block in cast(list[Block], vit.blocks):
        for linear in (block.q, block.k):
            linear.bias.zero_()
        for first in range(0, 192, 64):
            offset = OFFSETS[head % len(OFFSETS)]
            head += 1
            for linear, offsets in ((block.q, offset), (block.k, (0, 0))):
                rows = linear.weight[first : first + 32]
                rows.zero_()
                for i, cells_away in enumerate(offsets):
                    for j, (angle, g) in enumerate(zip((turn * cells_away).tolist(), gain.tolist(), strict=True)):
                        at = 16 * i + 2 * j
                        c, s = g * math.cos(angle), g * math.sin(angle)
                        rows[at : at + 2, at : at + 2] = torch.tensor([[c, -s], [s, c]])
        for linear in (block.o, block.fc2):
            linear.weight.zero_()
            linear.bias.zero_()


def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Muon for the matrices of the blocks."""
    inner = {id(p) for p in cast(Student, model).vit.blocks.parameters() if p.dim() == 2}
    everything = list(model.parameters())
    return MuonAdamW(
        [p for p in everything if id(p) in inner], [p for p in everything if id(p) not in inner], lr, 0.05, 0.4
    )


def score(model: nn.Module, *, data: Cifar) -> dict[str, float]:
    """The member's metric."""
    return augment.accuracy(model, data=data)


def task(options: Options) -> Task:
    """The training as data; reads the images and the teacher."""
    torch.manual_seed(options.seed)
    data = Cifar.load(options.device)
    shown = normalise(data.images[:512])
    teacher = Teacher(resnet(data_file("resnet_cifar/resnet20.safetensors"), 20), shown)
    model = Student()
    start(model.vit, shown)
    return Task(
        model,
        partial(loss, data=data, teacher=teacher, options=options),
        partial(score, data=data),
        optimizer,
        clip=0.0,
        member=lambda student: cast(Student, student).vit,
    )


def main(arguments: list[str] | None = None) -> None:
    training.command(__doc__, DEFAULTS, task, arguments)


if __name__ == "__main__":
    main()
