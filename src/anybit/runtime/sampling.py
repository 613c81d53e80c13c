"""How the next token is chosen: greedy, or a seeded draw from a filtered softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anybit.errors import AnybitError
from anybit.models.config import read_json
from anybit.runtime import native


@dataclass(frozen=True)
class Sampling:
    """Options of the sampler, applied in this order (that of transformers' logits processors).

    repetition_penalty: > 0; a positive logit of a token seen before is divided by it, a negative one multiplied; 1 = off.
    temperature: >= 0; 0 is greedy, and the options below have no effect.
    top_k: keep the k most likely tokens; 0 = all.
    top_p: in (0, 1]; keep the smallest set of most likely tokens whose probability reaches it.
    min_p: in [0, 1]; drop tokens less likely than min_p times the most likely one.
    seed: 0 .. 2^64 - 1.  A draw depends on the seed, the position and the logits, nothing else.

    Raises `AnybitError` for a value outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        def need(condition: bool, name: str, accepted: str) -> None:
            if not condition:
                raise AnybitError(f"the sampling option {name} must be {accepted}; got {getattr(self, name)!r}")

        need(math.isfinite(self.temperature) and self.temperature >= 0, "temperature", "a number of at least 0")
        need(0 <= self.top_k < 2**31, "top_k", "0 (all) or a number of tokens")
        need(0 < self.top_p <= 1, "top_p", "above 0 and at most 1")
        need(0 <= self.min_p <= 1, "min_p", "between 0 and 1")
        need(math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0, "repetition_penalty", "above 0")
        need(0 <= self.seed < 2**64, "seed", "between 0 and 2^64 - 1")

    def filters(self) -> tuple[float, int, float, float, float]:
        """temperature, top_k, top_p, min_p, repetition_penalty: what the native sampler takes, but for the seed."""
        return self.temperature, self.top_k, self.top_p, self.min_p, self.repetition_penalty


DEFAULT = Sampling(temperature=0.7, min_p=0.05)
"""For models that suggest nothing."""

_SUGGESTED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def suggested(folder: Path) -> Sampling:
    """What the model's generation_config.json suggests where that asks for sampling (`do_sample`), else `DEFAULT`.

    Options it leaves out are off, as in transformers. Raises `AnybitError` for values outside their range.
    """
    file = folder / "generation_config.json"
    found: Mapping[str, Any] = read_json(file, "it holds sampling options") if file.is_file() else {}
    if not found.get("do_sample"):
        return DEFAULT
    given = {name: found[name] for name in _SUGGESTED if isinstance(found.get(name), int | float)}
    try:
        return replace(Sampling(temperature=1.0), **given)
    except AnybitError as error:
        raise AnybitError(f"{file}: {error}") from None


def _arrays(logits: ArrayLike, history: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    values = np.ascontiguousarray(logits, dtype=np.float32).reshape(-1)
    if values.size == 0:
        raise AnybitError("there are no logits to sample from")
    return values, np.asarray(history, dtype=np.int32)


def sample(logits: ArrayLike, sampling: Sampling, history: Sequence[int] = (), counter: int = 0) -> int:
    """The token drawn from `logits` [vocab]; `counter` (the position) numbers the draws of one seed.

    Raises `AnybitError` where the logits hold a NaN or no finite number.
    """
    values, seen = _arrays(logits, history)
    try:
        return int(native.module().sample(values, seen, counter, *sampling.filters(), sampling.seed))
    except ValueError as error:
        raise AnybitError(str(error)) from None


def probabilities(logits: ArrayLike, sampling: Sampling, history: Sequence[int] = ()) -> NDArray[np.float64]:
    """The distribution `sample` draws from: float64 [vocab], all on one token where greedy."""
    values, seen = _arrays(logits, history)
    try:
        return np.asarray(native.module().sampling_probabilities(values, seen, *sampling.filters()), dtype=np.float64)
    except ValueError as error:
        raise AnybitError(str(error)) from None
