"""Text from an executor: prefill, then a token a step, with stop conditions, streaming and speeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from anybit.errors import AnybitError
from anybit.runtime.executor import NativeExecutor
from anybit.runtime.sampling import Sampling, sample

FinishReason = Literal["length", "stop", "context"]


class Executor(Protocol):
    """What generation needs of `NativeExecutor` or `models.executor.TorchExecutor`."""

    @property
    def position(self) -> int: ...
    def reset(self) -> None: ...
    def forward(self, ids: Sequence[int], logits: Literal["last", "all"] = "last") -> Tensor: ...


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that generation uses."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, token_ids: list[int], skip_special_tokens: bool = ...) -> str: ...


@dataclass(frozen=True)
class Generation:
    """What came out: `ids` and `text` without the prompt and without what stopped it; speeds in tokens a second (0 where
    nothing was measured); `finish_reason`: `length` (max_new_tokens), `stop` (a stop id or text), `context` (the model's
    positions are used up)."""

    text: str
    ids: tuple[int, ...]
    prompt_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    finish_reason: FinishReason


def _next(executor: Executor, ids: Sequence[int], sampling: Sampling, history: Sequence[int]) -> int:
    if isinstance(executor, NativeExecutor):
        return executor.next(ids, sampling, history)
    logits = executor.forward(ids)[-1]
    return sample(logits.float().numpy(), sampling, history, counter=executor.position)


class _Text:
    """Decoded text as it grows, a few tokens at a time, up to the first stop text.

    A token may end inside a character, and a tokenizer may treat the first token of a text differently; so new text is the
    difference between decoding a short window with and without the newest tokens, taken when it ends in a whole character.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], stream: Callable[[str], None] | None) -> None:
        self._tokenizer, self._stop, self._stream = tokenizer, [s for s in stop if s], stream
        self.text, self.stopped = "", False
        self._sent = self._window = self._read = 0

    def update(self, ids: list[int], final: bool = False) -> None:
        before = self._tokenizer.decode(ids[self._window : self._read], skip_special_tokens=True)
        after = self._tokenizer.decode(ids[self._window :], skip_special_tokens=True)
        if final or not after.endswith("\ufffd"):
            searched = max(0, len(self.text) - max((len(s) for s in self._stop), default=0))
            self.text += after[len(before) :]
            self._window, self._read = self._read, len(ids)
            found = [at for at in (self.text.find(s, searched) for s in self._stop) if at >= 0]
            if found:
                self.text, self.stopped = self.text[: min(found)], True
        if self._stream is None:
            return
        # The beginning of a stop text must not be shown before it is known whether the rest follows.
        whole = final or self.stopped
        held = (
            0
            if whole
            else max((n for s in self._stop for n in range(1, len(s)) if self.text.endswith(s[:n])), default=0)
        )
        end = len(self.text) - held
        if end > self._sent:
            self._stream(self.text[self._sent : end])
            self._sent = end


def generate(
    executor: Executor,
    tokenizer: Tokenizer | None,
    prompt: str | Sequence[int],
    max_new_tokens: int = 128,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    stop_ids: Collection[int] = (),
    stream: Callable[[str], None] | None = None,
    max_positions: int | None = None,
) -> Generation:
    """Continue `prompt` (text, or token ids) from an empty cache.

    tokenizer: may be None where the prompt is ids and no text is wanted (then neither `stop` nor `stream`).
    stop: generation ends before the first of these texts; stop_ids: or at one of these tokens.
    stream: called with each new piece of text.
    max_positions: the longest sequence; None = the executor's plan's.

    Raises `AnybitError` for an empty prompt, one that leaves no position free, or options that need a tokenizer without one.
    """
    sampling = sampling or Sampling()
    if max_new_tokens < 1:
        raise AnybitError(f"the number of new tokens must be at least 1; got {max_new_tokens}")
    if tokenizer is None and (isinstance(prompt, str) or stop or stream is not None):
        raise AnybitError("a text prompt, stop texts and streaming need a tokenizer; this model has none")
    ids = (
        list(tokenizer.encode(prompt))
        if isinstance(prompt, str) and tokenizer is not None
        else [int(i) for i in prompt]
    )
    if not ids:
        raise AnybitError("the prompt is empty; give at least one token")
    plan = getattr(executor, "plan", None)
    limit = max_positions or (plan.max_positions if plan is not None else len(ids) + max_new_tokens)
    if len(ids) > limit:
        raise AnybitError(f"the prompt has {len(ids)} tokens; the model has {limit} positions")

    text = _Text(tokenizer, stop, stream) if tokenizer is not None else None
    executor.reset()
    new: list[int] = []
    finish: FinishReason = "length"
    begin = time.perf_counter()
    token = _next(executor, ids, sampling, ids)
    first = time.perf_counter()
    while True:
        if token in stop_ids:
            finish = "stop"
            break
        new.append(token)
        if text is not None:
            text.update(new)
            if text.stopped:
                finish = "stop"
                break
        if len(new) == max_new_tokens:
            break
        if len(ids) + len(new) > limit:
            finish = "context"
            break
        token = _next(executor, [token], sampling, [*ids, *new] if sampling.repetition_penalty != 1 else ())
    seconds = time.perf_counter() - first
    if text is not None and not text.stopped:
        text.update(new, final=True)
    steps = executor.position - len(ids)
    return Generation(
        text="" if text is None else text.text,
        ids=tuple(new),
        prompt_tokens=len(ids),
        prefill_tokens_per_s=len(ids) / (first - begin),
        decode_tokens_per_s=steps / seconds if steps else 0.0,
        finish_reason=finish,
    )
