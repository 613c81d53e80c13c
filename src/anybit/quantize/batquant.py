"""BATQuant (arXiv 2603.16590): weights and activations in MXFP4 behind learned affine transforms of every block of 32 channels.

The transforms (`transforms.block_affine`) are learned one block of the model after the other, on the float model's inputs and outputs,
as FlatQuant does (arXiv 2410.09426), with weights and activations rounded on the way and gradients straight through; then they are frozen
and folded into the weights, whose codes GPTQ chooses with the statistics of the transformed inputs.
Differs from the paper: learning starts at Hadamard matrices of the blocks or at no transform rather than at random orthogonal matrices
(`start`), and the best transforms on held-out windows are kept; weights are not clipped by learned bounds, because GPTQ's scales are
searched, which allows every block of every row its own; the rates fall linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize import gptq
from anybit.quantize.learned import rounded
from anybit.quantize.reconstruct import Outputs, Settings, Targets, descend, error_of, split
from anybit.transforms import block_affine
from anybit.transforms.block_affine import BlockAffine

FORMAT = "mxfp4"
KEPT_AT_FIRST = 4.0
"""Logit of the clipping bounds' shares where learning starts: 98 % of a block's extremes."""

Transforms = Mapping[str, BlockAffine]
"""By the name of the first matrix that reads what is transformed."""

Forward = Callable[[Mapping[str, Tensor], Transforms, Sequence[int]], Tensor]
"""(matrices by name, transformed and rounded; transforms; numbers of windows) -> the block's outputs, activations transformed, clipped and
rounded on the way (`learned.rounded`)."""


Options = gptq.Options
"""Those of GPTQ, which chooses the codes behind the transforms."""

quantize = gptq.under("batquant")
"""Quantize a transformed weight [N, K] with the statistics of its transformed inputs; errors as `gptq.quantize`."""


@dataclass(frozen=True)
class Learned:
    """transforms: by the first matrix that reads them.  before, after: error of the block's outputs on held-out windows over their mean
    square, with the transforms that learning started from and with those kept."""

    transforms: Transforms
    before: float
    after: float


def learn(
    groups: Mapping[str, Mapping[str, tuple[Tensor, TensorFormat]]],
    forward: Forward,
    targets: Targets,
    windows: int,
    options: block_affine.Options,
    name: str = "block",
) -> Learned:
    """The transforms of a block of a model, or of one layer.

    groups: first matrix -> all matrices that read the same value, each a weight [N, K] and the format it will have.
    Equal arguments on equal threads give equal bits.  RecipeError where block sizes do not divide a width or the outputs are not finite.
    """
    for matrices in groups.values():
        for matrix, (weight, _) in matrices.items():
            options.fits(weight.shape[1], matrix)
    learner = _Learner(groups, forward, options)
    settings = Settings(options.steps, batch=options.batch, held_out=options.held_out, seed=options.seed)
    held = split(windows, options.held_out)[1]
    if options.start == "auto":
        learner.choose_starts(targets, held)
    done = descend(learner, learner.state(), targets, windows, settings, name)
    return learner.unclipped(Learned(done.state, done.before, done.after), targets, held)


class _Learner:
    """The factors and clipping bounds of every group."""

    def __init__(
        self,
        groups: Mapping[str, Mapping[str, tuple[Tensor, TensorFormat]]],
        forward: Forward,
        options: block_affine.Options,
    ) -> None:
        self._groups, self._forward, self._options = groups, forward, options
        self._factors: list[Tensor] = []
        self._bounds: list[Tensor] = []
        self._transforms: dict[str, BlockAffine] = {}
        for number, (key, matrices) in enumerate(groups.items()):
            width = next(iter(matrices.values()))[0].shape[1]
            begin = block_affine.start(width, options, number)
            shared, own = (factor.clone().requires_grad_() for factor in (begin.shared, begin.own))
            self._factors += [shared, own]
            logit = torch.full((2, own.shape[0]), KEPT_AT_FIRST, requires_grad=True)
            if options.clip:
                self._bounds.append(logit)
            self._transforms[key] = BlockAffine(shared, own, logit if options.clip else None)

    def choose_starts(self, targets: Targets, windows: Sequence[int]) -> None:
        """Begin at the identity wherever that errs less than Hadamard matrices, one value after the other."""
        plain = replace(self._options, start="identity")
        lowest = error_of(self, self.state(), targets, windows)
        for each in self._transforms.values():
            turned = each.shared.detach().clone(), each.own.detach().clone()
            begin = block_affine.start(each.width, plain)
            each.shared.data.copy_(begin.shared)
            each.own.data.copy_(begin.own)
            error = error_of(self, self.state(), targets, windows)
            if error < lowest:
                lowest = error
            else:
                each.shared.data.copy_(turned[0])
                each.own.data.copy_(turned[1])

    def unclipped(self, learned: Learned, targets: Targets, windows: Sequence[int]) -> Learned:
        """The same without bounds wherever that errs less, one value after the other: learning clips a little from its start on."""
        for key, each in learned.transforms.items():
            if each.kept is None:
                continue
            without = {**learned.transforms, key: replace(each, kept=torch.ones_like(each.kept))}
            error = error_of(self, without, targets, windows)
            if error < learned.after:
                learned = replace(learned, transforms=without, after=error)
        return learned

    def groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": self._factors, "lr": self._options.rate}]
        return [*groups, {"params": self._bounds, "lr": self._options.clip_rate}] if self._bounds else groups

    def forward(self, windows: Sequence[int]) -> Tensor:
        return self._outputs(self._now())(windows)

    def state(self) -> Transforms:
        return {key: each.bounded(self._options.condition).stored() for key, each in self._now().items()}

    def outputs(self, state: Transforms) -> Outputs:
        return self._outputs(state)

    def _now(self) -> dict[str, BlockAffine]:
        return {
            key: replace(each, kept=None if each.kept is None else each.kept.sigmoid())
            for key, each in self._transforms.items()
        }

    def _outputs(self, transforms: Transforms) -> Outputs:
        matrices: dict[str, Tensor] = {}
        for key, members in self._groups.items():
            turn = transforms[key].for_weights()
            for matrix, (weight, fmt) in members.items():
                matrices[matrix] = rounded(turn.forward(weight), fmt)
        return partial(self._forward, matrices, transforms)
