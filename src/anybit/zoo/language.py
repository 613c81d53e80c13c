"""What the language models of the zoo that are no `Plan` read and are scored on: the texts and the tokenizer of `anybit-tiny`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.models.config import read_json
from anybit.models.tokenizer import Tokenizer, load_tokenizer
from anybit.zoo.architectures.masked_lm import bound, corrupt
from anybit.zoo.members import WEIGHTS
from anybit.zoo.train_lm import Config

Progress = Callable[[str, float, float], None]
SOURCE = WEIGHTS / "anybit-tiny"
MASK = Config().vocab_size
"""The mask's id in a `MaskedLM`: one beyond the tokens."""
WINDOW = 256
"""Tokens of a window that a bound is measured on, and of one for calibration."""
DRAWS = 64
"""Fixed draws of (t, masks) the bound is averaged over: t at the middles of as many equal parts of 0..1, each on a window of its own."""


def tokenizer() -> Tokenizer:
    """The byte-level BPE of anybit-tiny."""
    return load_tokenizer(SOURCE, read_json(SOURCE / "config.json", "the model whose texts are used"))


def windows(name: str, length: int, count: int | None = None) -> Tensor:
    """Windows [n, length] of a text of anybit-tiny (`heldout.txt`, `calibration.txt`): side by side, or `count` evenly spread."""
    ids = torch.tensor(tokenizer().encode((SOURCE / name).read_text(encoding="utf-8")))
    if count is None:
        return ids[: len(ids) // length * length].view(-1, length)
    starts = torch.linspace(0, len(ids) - length, count).long()
    return torch.stack([ids[start : start + length] for start in starts.tolist()])


def perplexity(module: nn.Module, progress: Progress) -> float:
    """Of heldout.txt in windows of 511 tokens behind the begin token, as `anybit eval` cuts it."""
    from anybit.models.evaluation import cut

    reader = tokenizer()
    parts = cut(reader.encode((SOURCE / "heldout.txt").read_text(encoding="utf-8")), 512, reader.bos)
    total, count = 0.0, 0
    with torch.no_grad():
        for number, part in enumerate(parts, 1):
            window = torch.tensor(part)
            total += F.cross_entropy(module(window[None, :-1])[0].double(), window[1:], reduction="sum").item()
            count += len(window) - 1
            progress(f"window {number} of {len(parts)}", number, len(parts))
    return math.exp(total / count)


def calibration() -> list[Tensor]:
    """32 windows of calibration.txt, four at a time."""
    return list(windows("calibration.txt", WINDOW, 32).split(4))


def fixed_draws() -> tuple[Tensor, Tensor, Tensor]:
    """ids [64, 256], t [64] and uniform numbers [64, 256] of the bound, always the same."""
    generator = torch.Generator().manual_seed(0)
    share = (torch.arange(DRAWS) + 0.5) / DRAWS
    return windows("heldout.txt", WINDOW, DRAWS), share, torch.rand(DRAWS, WINDOW, generator=generator)


def masked_score(module: nn.Module, progress: Progress) -> float:
    """The bound of a masked model on heldout.txt, in nats a token."""
    ids, share, draws = fixed_draws()
    total, size = 0.0, 8
    with torch.no_grad():
        for start in range(0, DRAWS, size):
            part = slice(start, start + size)
            total += bound(module, ids[part], share[part], draws[part], MASK).item() * size
            progress(f"{start + size} of {DRAWS} draws", start + size, DRAWS)
    return total / DRAWS


def masked_calibration() -> list[Tensor]:
    """The windows of `calibration` with masks at t from 1/32 to 1: what the model sees while it makes a text."""
    ids = windows("calibration.txt", WINDOW, 32)
    draws = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1))
    return list(corrupt(ids, (torch.arange(32) + 1) / 32, draws, MASK)[0].split(4))
