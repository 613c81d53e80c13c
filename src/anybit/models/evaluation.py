"""Perplexity of a token sequence, and the divergence of one executor's predictions from another's.

Protocol.  The text is encoded without special tokens and cut into windows that do not overlap.  A model with a begin token gets it
in front of each window of `window - 1` tokens, all of which are scored; a model without one gets windows of `window` tokens, of
which all but the first are scored.  A last window of fewer than 16 scored tokens is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from anybit.errors import AnybitError

LEAST = 16
"""Scored tokens below which the last window is dropped."""

CHUNK = 64
"""Rows of logits widened to float64 at a time: a vocabulary may have 262,144 entries."""

Progress = Callable[[int, int], None]
"""Called with (tokens scored so far, tokens in all) after each window."""


class Executor(Protocol):
    """What runs a plan on one sequence."""

    def reset(self) -> None:
        """Forget the sequence."""

    def forward(self, ids: Sequence[int], logits: Literal["last", "all"] = "last") -> Tensor:
        """Append tokens; float32 logits [1, vocab] or [len(ids), vocab]."""


class Remembering:
    """An executor that runs each sequence once and keeps the logits."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.seen: dict[tuple[int, ...], Tensor] = {}

    def reset(self) -> None:
        """Forget the sequence."""
        self.inner.reset()

    def forward(self, ids: Sequence[int], logits: Literal["last", "all"] = "last") -> Tensor:
        """As of the executor inside."""
        key = tuple(ids)
        if key not in self.seen:
            self.seen[key] = self.inner.forward(ids, logits)
        return self.seen[key]


@dataclass(frozen=True)
class Score:
    """Mean negative log-likelihood in nats a token with its standard error, over `tokens` scored tokens."""

    nll: float
    stderr: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(nll); infinite where that overflows."""
        return math.exp(self.nll) if self.nll < 700 else math.inf


@dataclass(frozen=True)
class Divergence:
    """How far a model's predictions are from a reference's, over `tokens` positions.

    kl: mean Kullback-Leibler divergence (reference ‖ model) in nats a token, stderr its standard error; agreement: share of positions
    at which both rank the same token first.
    """

    kl: float
    stderr: float
    agreement: float
    tokens: int


def cut(ids: Sequence[int], window: int, bos: int | None, limit: int | None = None) -> list[list[int]]:
    """The windows of a token sequence by the protocol above, each with what is put in front.

    window: tokens of one forward pass, at least 2; limit: score at most about this many tokens (whole windows).
    Raises AnybitError where no window is long enough to be scored.
    """
    if window < 2:
        raise AnybitError(f"a window needs at least 2 tokens; got {window}")
    step = window - 1 if bos is not None else window
    head = [bos] if bos is not None else []
    windows = [head + list(ids[i : i + step]) for i in range(0, len(ids), step)]
    if len(windows) > 1 and len(windows[-1]) - 1 < LEAST:
        windows.pop()
    if limit is not None:
        windows = windows[: max(1, limit // max(1, window - 1))]
    if not windows or len(windows[0]) < 2:
        raise AnybitError(f"the text holds {len(ids)} tokens, too few to score: at least 2 are needed")
    return windows


def perplexity(executor: Executor, windows: Iterable[Sequence[int]], progress: Progress | None = None) -> Score:
    """Score every token of each window but its first, on an executor reset between windows."""
    parts = []
    windows = list(windows)
    total, done = sum(len(w) - 1 for w in windows), 0
    for window in windows:
        logits = _logits(executor, window)
        target = torch.tensor(window[1:])
        for rows, wanted in zip(logits.split(CHUNK), target.split(CHUNK), strict=True):
            parts.append(torch.nn.functional.cross_entropy(rows.double(), wanted, reduction="none"))
        done += len(target)
        if progress is not None:
            progress(done, total)
    nll = torch.cat(parts)
    return Score(nll.mean().item(), _stderr(nll), len(nll))


def divergence(
    executor: Executor, reference: Executor, windows: Iterable[Sequence[int]], progress: Progress | None = None
) -> Divergence:
    """Compare two executors of the same vocabulary on the same windows; both are reset between windows.

    Raises AnybitError where the vocabularies differ in size.
    """
    kl, same = [], []
    windows = list(windows)
    total, done = sum(len(w) - 1 for w in windows), 0
    for window in windows:
        p, q = _logits(reference, window), _logits(executor, window)
        if p.shape != q.shape:
            raise AnybitError(
                f"the models have vocabularies of {p.shape[1]} and {q.shape[1]} tokens and cannot be compared"
            )
        for p_rows, q_rows in zip(p.split(CHUNK), q.split(CHUNK), strict=True):
            log_p, log_q = p_rows.double().log_softmax(-1), q_rows.double().log_softmax(-1)
            kl.append((log_p.exp() * (log_p - log_q)).sum(-1))
        same.append((p.argmax(-1) == q.argmax(-1)).double())
        done += len(window) - 1
        if progress is not None:
            progress(done, total)
    values = torch.cat(kl)
    return Divergence(values.mean().item(), _stderr(values), torch.cat(same).mean().item(), len(values))


def _logits(executor: Executor, window: Sequence[int]) -> Tensor:
    """Logits [len(window) - 1, vocab] for the window's tokens after the first."""
    executor.reset()
    return executor.forward(window[:-1], "all")


def _stderr(values: Tensor) -> float:
    return (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan
