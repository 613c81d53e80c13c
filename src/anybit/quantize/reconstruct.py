"""The block-reconstruction trainer: roundings and scales of a block's weights, learned so that the block's outputs match the float model's.

Inputs come from the quantized part before, targets from the float model, so that a block also makes up for what was lost before it
(BRECQ, arXiv 2102.05426; Yvinec et al., arXiv 2308.07662, survey the family).  `learned` says what of a weight is learned.

A share of the windows is held out: ten times on the way the error there is measured, and the best is kept, so a block never gets worse
than it began.  Roundings that gradients pass through swing to and fro; the last step is rarely the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.quantize.learned import SLOPE, LearnedWeight, RelaxedWeight
from anybit.tensors import QTensor

Forward = Callable[[Mapping[str, Tensor], Sequence[int]], Tensor]
"""(weights by name, numbers of windows) -> the block's outputs on them, of any shape."""

Targets = Callable[[Sequence[int]], Tensor]
"""Numbers of windows -> the outputs to match, of the same shape."""

Optimizer = Literal["adam", "sign", "sgd"]
Loss = Literal["mse", "l1", "cosine", "kl"]
Variable = Literal["free", "relaxed"]
Penalty = Callable[[float], Tensor | None]
"""The finished share of the steps -> what is added to the loss, None for nothing."""

Outputs = Callable[[Sequence[int]], Tensor]
"""Numbers of windows -> the block's outputs on them."""

Told = Callable[[float], None]
"""Called with the finished share of the steps."""

State = TypeVar("State")

CHECKS = 10
"""How often the held-out error is measured."""


@dataclass(frozen=True)
class Settings:
    """steps: of the optimizer, 0 or more.  rate: of the roundings, in mean steps of the grid; scale_rate: of log scales; both fall
    linearly to 0.

    batch: windows a step.  optimizer: "adam", "sign" (steps of the gradient's sign), "sgd" with momentum 0.9.  loss: "mse", "l1",
    "cosine" (of every row), or "kl", the divergence of outputs that are logits.
    rounding, scales: what is learned.  variable: of the roundings, "free" to go to any code, or "relaxed" between the two next to the
    weight; penalty: how much a relaxed weight's being between codes adds to the relative loss (`learned.RelaxedWeight`).
    held_out: share of the windows that decide whether the result is kept.  seed: of the batches.
    """

    steps: int = 200
    rate: float = 0.006
    scale_rate: float = 0.001
    batch: int = 4
    optimizer: Optimizer = "adam"
    loss: Loss = "mse"
    rounding: bool = True
    scales: bool = True
    variable: Variable = "free"
    penalty: float = 10.0
    held_out: float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1:
            raise ValueError(f"steps are 0 or more and a batch 1 or more; got {self.steps} and {self.batch}")
        if not (self.rate >= 0 and self.scale_rate >= 0):
            raise ValueError(f"rates are 0 or more; got {self.rate:g} and {self.scale_rate:g}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"the share held out lies in [0, 1); got {self.held_out:g}")
        for what, given, known in (
            ("the optimizer", self.optimizer, Optimizer),
            ("the loss", self.loss, Loss),
            ("the variable", self.variable, Variable),
        ):
            if given not in get_args(known):
                raise ValueError(f"{what} is one of {', '.join(get_args(known))}; got {given!r}")
        if not self.penalty >= 0:
            raise ValueError(f"the penalty is 0 or more; got {self.penalty:g}")


@dataclass(frozen=True)
class Reconstructed:
    """weights: by name.  before, after: mean squared error on the held-out windows over the targets' mean square (of "kl": nats a
    row); kept: whether it fell, else the weights are those it started from."""

    weights: Mapping[str, QTensor]
    before: float
    after: float
    kept: bool


class Learner(Protocol[State]):
    """What of a block is learned, to `descend`.  A state is all of it as it would be kept, rounded where it will be stored rounded."""

    def groups(self) -> list[dict[str, Any]]:
        """Parameters with their rates, as optimizers of torch take them; empty where there is nothing to learn."""
        ...

    def forward(self, windows: Sequence[int]) -> Tensor:
        """The block's outputs on these windows, differentiable."""
        ...

    def state(self) -> State:
        """Now."""
        ...

    def outputs(self, state: State) -> Outputs:
        """The block's outputs with that state, whose weights are decoded once for all windows; without gradients."""
        ...


@dataclass(frozen=True)
class Descended(Generic[State]):
    """state: the best on the held-out windows.  before, after: as of `Reconstructed`, of the first and of the best state."""

    state: State
    before: float
    after: float


def descend(
    learner: Learner[State],
    start: State,
    targets: Targets,
    windows: int,
    settings: Settings,
    name: str = "block",
    told: Told | None = None,
    weigh: Tensor | None = None,
    penalty: Penalty | None = None,
) -> Descended[State]:
    """Lower the error of a block's outputs on `windows` windows from `start`, where the learner begins.

    weigh: [versions] of a learner whose outputs are [versions, rows, choices], all to match the same targets, under "kl": what is lowered
    is the sum of their divergences, so weighed.  penalty: what the learner adds to the loss.
    Equal arguments on equal threads give equal bits.  RecipeError where the block's first outputs are NaN or infinite; where they become
    so, learning ends with the best state until then.
    """
    train, held = split(windows, settings.held_out)
    best = start
    before = lowest = error_of(learner, best, targets, held, settings.loss, weigh)
    if not before < float("inf"):
        raise RecipeError(f"{name}: the outputs of the block are NaN or infinite on the calibration text")
    groups = learner.groups()
    if settings.steps == 0 or not groups:
        return Descended(best, before, before)
    optimizer = _optimizer(settings.optimizer, groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    queue: list[int] = []
    every = max(1, settings.steps // CHECKS)
    with torch.enable_grad():
        for step in range(1, settings.steps + 1):
            while len(queue) < min(settings.batch, len(train)):
                queue += torch.randperm(len(train), generator=generator).tolist()
            batch, queue = sorted(queue[: settings.batch]), queue[settings.batch :]
            optimizer.zero_grad(set_to_none=True)  # before the forward pass, which needs the memory
            wanted = targets(batch)
            got = learner.forward(batch)
            loss = _loss(settings.loss, got, wanted, weigh)
            extra = None if penalty is None else penalty((step - 1) / settings.steps)
            loss = loss if extra is None else loss + extra
            if not bool(torch.isfinite(loss)):
                break
            loss.backward()
            if settings.optimizer == "sign":
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = parameter.grad.sign()
            optimizer.step()
            schedule.step()
            if told is not None:
                told(step / settings.steps)
            if step % every == 0 or step == settings.steps:
                now = learner.state()
                error = error_of(learner, now, targets, held, settings.loss, weigh)
                if error < lowest:
                    best, lowest = now, error
    return Descended(best, before, lowest)


class _Weights:
    """The roundings and scales of a block's weights, as a learner."""

    def __init__(self, parts: Mapping[str, tuple[Tensor, QTensor]], forward: Forward, settings: Settings) -> None:
        kind = RelaxedWeight if settings.variable == "relaxed" else LearnedWeight
        self._learned = {key: kind(weight, q) for key, (weight, q) in parts.items()} if settings.steps else {}
        self._forward, self._settings = forward, settings

    def groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = []
        if self._settings.rounding and self._learned:
            rate = self._settings.rate / (SLOPE if self._settings.variable == "relaxed" else 1)
            groups.append({"params": [w.offset for w in self._learned.values()], "lr": rate})
        stretches = [w.scales.stretch for w in self._learned.values() if w.scales is not None]
        if self._settings.scales and stretches:
            groups.append({"params": stretches, "lr": self._settings.scale_rate})
        return groups

    def penalty(self, share: float) -> Tensor | None:
        """The mean of the weights'; None where none has one."""
        each = [one for w in self._learned.values() if (one := w.penalty(share)) is not None]
        return self._settings.penalty * torch.stack(each).mean() if each and self._settings.penalty else None

    def forward(self, windows: Sequence[int]) -> Tensor:
        return self._forward({key: w.value() for key, w in self._learned.items()}, windows)

    def state(self) -> dict[str, QTensor]:
        return {key: w.harden() for key, w in self._learned.items()}

    def outputs(self, state: dict[str, QTensor]) -> Outputs:
        return partial(self._forward, {key: q.dequantize() for key, q in state.items()})


def reconstruct(
    parts: Mapping[str, tuple[Tensor, QTensor]],
    forward: Forward,
    targets: Targets,
    windows: int,
    settings: Settings,
    name: str = "block",
    told: Told | None = None,
) -> Reconstructed:
    """Learn the roundings and scales of `parts` (name -> weight and where it starts) over `windows` windows; see `descend`."""
    start = {key: q for key, (_, q) in parts.items()}
    learner = _Weights(parts, forward, settings)
    done = descend(learner, start, targets, windows, settings, name, told, penalty=learner.penalty)
    return Reconstructed(done.state, done.before, done.after, done.after < done.before)


def split(windows: int, held_out: float) -> tuple[list[int], list[int]]:
    """Numbers of the windows that are learned from, and of those that decide; the same ones where none are held out."""
    last = max(1, round(held_out * windows)) if windows > 1 and held_out > 0 else 0
    train = list(range(windows - last))
    return train, list(range(windows - last, windows)) or train


@torch.no_grad()
def error_of(
    learner: Learner[State],
    state: State,
    targets: Targets,
    windows: Sequence[int],
    loss: Loss = "mse",
    weigh: Tensor | None = None,
) -> float:
    """Squared error of a state's outputs over the targets' square, on these windows; for "kl" the divergence, nats a row."""
    wrong = total = 0.0
    outputs = learner.outputs(state)
    for window in windows:
        wanted, got = targets([window]), outputs([window])
        if loss == "kl":
            wrong += float(_divergence(got, wanted, weigh).sum(dtype=torch.float64))
            total += len(wanted)
        else:
            wrong += float((got - wanted).square().sum(dtype=torch.float64))
            total += float(wanted.square().sum(dtype=torch.float64))
    return wrong / total if total != 0 else 0.0


def _loss(kind: Loss, got: Tensor, wanted: Tensor, weigh: Tensor | None = None) -> Tensor:
    """What is lowered, relative to the targets, so that rates mean the same for every block."""
    if kind == "mse":
        return (got - wanted).square().mean() / wanted.square().mean()
    if kind == "l1":
        return (got - wanted).abs().mean() / wanted.abs().mean()
    if kind == "cosine":
        return 1 - torch.nn.functional.cosine_similarity(got, wanted, dim=-1).mean()
    return _divergence(got, wanted, weigh).mean()


def _divergence(got: Tensor, wanted: Tensor, weigh: Tensor | None = None) -> Tensor:
    """[rows] KL divergence of the distributions that logits [rows, choices] give from those that are wanted, in nats; of several versions
    [versions, rows, choices] the weighed sum."""
    expected = wanted.log_softmax(-1)
    found = (expected.exp() * (expected - got.log_softmax(-1))).sum(-1)
    return found if weigh is None else weigh @ found


def _optimizer(kind: Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(groups)
    return torch.optim.SGD(groups, momentum=0.9 if kind == "sgd" else 0.0)
