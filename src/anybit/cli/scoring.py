"""Perplexity of a model on a text, as `anybit eval` and the demo measure it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from anybit.cli.bench.rounds import Progress, silent
from anybit.errors import AnybitError

if TYPE_CHECKING:
    from anybit.models import Model
    from anybit.models.evaluation import Score

LONGEST_WINDOW = 2048


def windows(model: Model, text: str, window: int | None = None, tokens: int | None = None) -> list[list[int]]:
    """The windows of a text by the protocol of `models.evaluation`.

    window: tokens of one pass; the model's positions, at most 2048, where None. tokens: score at most about this many.
    Raises AnybitError where the window is longer than the model reads or the text is too short.
    """
    from anybit.models import evaluation

    most = model.plan.max_positions
    if window is None:
        window = min(most, LONGEST_WINDOW)
    if not 2 <= window <= most:
        raise AnybitError(f"a window has between 2 and {most} tokens, the positions of the model; got {window}")
    return evaluation.cut(model.tokenizer.encode(text), window, model.tokenizer.bos, tokens)


def score(executor: Any, cut: Sequence[Sequence[int]], job: Progress = silent) -> Score:
    """Perplexity over the windows; `job` is told how many tokens are scored."""
    from anybit.models import evaluation

    def told(done: int, total: int) -> None:
        job(f"{done:,} of {total:,} tokens", done, total)

    return evaluation.perplexity(executor, cut, told)
