"""The block-reconstruction trainer: roundings and scales of a block's weights, learned so that the block's outputs match the float model's.

Inputs come from the quantized part before, targets from the float model, so that a block also makes up for what was lost before it.  A
weight starts as the codes that another quantizer (GPTQ) chose and stays on its grid: value = (round(u + V) - zero) * scale * exp(a), u
being the unrounded weight in units of its scale where it rounds to the same code, else the code itself.  V and a are learned; gradients
pass roundings straight through (Yvinec et al., arXiv 2308.07662, survey the family: AdaRound, BRECQ, AdaQuant; AutoRound, arXiv
2309.05516, has the same variables).

A share of the windows is held out: ten times on the way the error there is measured, and the best is kept, so a block never gets worse
than it began.  Roundings that gradients pass through swing to and fro; the last step is rarely the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.tensors import QTensor

Forward = Callable[[Mapping[str, Tensor], Sequence[int]], Tensor]
"""(weights by name, numbers of windows) -> the block's outputs on them, of any shape."""

Targets = Callable[[Sequence[int]], Tensor]
"""Numbers of windows -> the outputs to match, of the same shape."""

Optimizer = Literal["adam", "sign", "sgd"]
Loss = Literal["mse", "l1", "kl"]

Told = Callable[[float], None]
"""Called with the finished share of the steps."""

State = TypeVar("State")

CHECKS = 10
"""How often the held-out error is measured."""


@dataclass(frozen=True)
class Settings:
    """steps: of the optimizer, 0 or more.  rate: of the roundings, in mean steps of the grid; scale_rate: of log scales; both fall
    linearly to 0.

    batch: windows a step.  optimizer: "adam", "sign" (steps of the gradient's sign), "sgd" with momentum 0.9.  loss: "mse", "l1", or
    "kl", the divergence of outputs that are logits.
    rounding, scales: what is learned.  held_out: share of the windows that decide whether the result is kept.  seed: of the batches.
    """

    steps: int = 200
    rate: float = 0.006
    scale_rate: float = 0.001
    batch: int = 4
    optimizer: Optimizer = "adam"
    loss: Loss = "mse"
    rounding: bool = True
    scales: bool = True
    held_out: float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1:
            raise ValueError(f"steps are 0 or more and a batch 1 or more; got {self.steps} and {self.batch}")
        if not (self.rate >= 0 and self.scale_rate >= 0):
            raise ValueError(f"rates are 0 or more; got {self.rate:g} and {self.scale_rate:g}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"the share held out lies in [0, 1); got {self.held_out:g}")
        if self.optimizer not in get_args(Optimizer) or self.loss not in get_args(Loss):
            raise ValueError(
                f"the optimizer is adam, sign or sgd and the loss mse, l1 or kl; got {self.optimizer!r} and {self.loss!r}"
            )


class LearnedScales:
    """The scales of a quantized weight, with what is learned of them.

    stretch: a [row blocks, column blocks], each scale being exp(a) times the one it started from, on the grid of scales.
    """

    def __init__(self, start: QTensor) -> None:
        """start: a weight whose format has scales."""
        assert start.scale is not None and start.format.scale is not None, "a format with scales"
        self._grid = start.format.scale
        self._stored = self._grid.decode(start.scale) if start.scale.dtype == torch.uint8 else start.scale
        self._stored = self._stored.float()
        self._factor = 1.0 if start.tensor_scale is None else float(start.tensor_scale)
        self._over = start
        self.stretch = torch.zeros_like(self._stored, requires_grad=True)

    def each(self) -> Tensor:
        """The scale of every weight, with the tensor scale, as `over_all`; differentiable."""
        return over_all(self.stored() * self._factor, self._over)

    def stored(self) -> Tensor:
        """[row blocks, column blocks] as stored, without the tensor scale; differentiable."""
        return straight(self._grid.round, self._stored * torch.exp(self.stretch))


def over_all(blocks: Tensor, q: QTensor) -> Tensor:
    """Block parameters of a quantized weight [row blocks, column blocks] for its elements [N, K]; a dimension that is one block stays 1."""
    tall, wide = q.format.block
    blocks = blocks.repeat_interleave(tall, 0)[: q.row_count] if tall else blocks
    return blocks.repeat_interleave(wide, 1)[:, : q.col_count] if wide else blocks


class LearnedWeight:
    """One weight on its grid, with what is learned of it.

    offset: V [N, K] added before rounding.  scales: None where the format has none.
    """

    def __init__(self, weight: Tensor, start: QTensor) -> None:
        """weight: float [N, K], what was quantized.  start: its codes and scales."""
        self.format: TensorFormat = start.format
        self._start = start
        fmt = start.format
        zeros = start.zeros()
        self._zero = None if zeros is None else over_all(zeros, start)
        self.scales = None if start.scale is None else LearnedScales(start)
        code = fmt.element.decode(start.unpacked()).float()
        scale = over_all(start.scales(), start)
        exact = weight.float() / torch.where(scale == 0, torch.ones(()), scale)
        exact = exact if self._zero is None else exact + self._zero
        # Where the start rounds as the weight alone would, its place between two codes is kept: it says how near the other code is.
        self._unrounded = torch.where(fmt.element.round(exact) == code, exact, code)
        # Codebooks and floats have steps of their own sizes: V counts the mean one.
        values = fmt.element.values
        self._step = float(values.max() - values.min()) / max(1, len(set(values.tolist())) - 1)
        self.offset = torch.zeros(start.row_count, start.col_count, requires_grad=True)

    def value(self) -> Tensor:
        """[N, K] the weight as its codes and scales now give it; differentiable."""
        code = straight(self.format.element.round, self._unrounded + self.offset * self._step)
        code = code if self._zero is None else code - self._zero
        return code if self.scales is None else code * self.scales.each()

    def harden(self) -> QTensor:
        """The codes and scales themselves."""
        with torch.no_grad():
            scale = None if self.scales is None else self.scales.stored()
            return tensors.encode(self.value(), self.format, scale, self._start.zeros(), self._start.tensor_scale)


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

    def outputs(self, state: State, windows: Sequence[int]) -> Tensor:
        """The block's outputs with that state."""
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
) -> Descended[State]:
    """Lower the error of a block's outputs on `windows` windows from `start`, where the learner begins.

    weigh: [versions] of a learner whose outputs are [versions, rows, choices], all to match the same targets, under "kl": what is lowered
    is the sum of their divergences, so weighed.
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
        self._learned = {key: LearnedWeight(weight, q) for key, (weight, q) in parts.items()} if settings.steps else {}
        self._forward, self._settings = forward, settings

    def groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = []
        if self._settings.rounding and self._learned:
            groups.append({"params": [w.offset for w in self._learned.values()], "lr": self._settings.rate})
        stretches = [w.scales.stretch for w in self._learned.values() if w.scales is not None]
        if self._settings.scales and stretches:
            groups.append({"params": stretches, "lr": self._settings.scale_rate})
        return groups

    def forward(self, windows: Sequence[int]) -> Tensor:
        return self._forward({key: w.value() for key, w in self._learned.items()}, windows)

    def state(self) -> dict[str, QTensor]:
        return {key: w.harden() for key, w in self._learned.items()}

    def outputs(self, state: dict[str, QTensor], windows: Sequence[int]) -> Tensor:
        return self._forward({key: q.dequantize() for key, q in state.items()}, windows)


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
    done = descend(_Weights(parts, forward, settings), start, targets, windows, settings, name, told)
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
    for window in windows:
        wanted, got = targets([window]), learner.outputs(state, [window])
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


def straight(rounding: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """rounding(x), with the gradient of x."""
    return x + (rounding(x.detach()) - x.detach())
