"""The books as one file of tokens, and the weights of `anybit-tiny`, for the language models that are trained on from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anybit.zoo.data import data_file
from anybit.zoo.language import SOURCE
from anybit.zoo.story_text import for_children, read_books, tokenize
from anybit.zoo.training import Options

TOKENS = "tokens.npy"


def token_file(text: Path | None, out: Path) -> np.ndarray:
    """Token ids [n] uint16 of the children's books in a text (of all, where none are), kept in `out` for the next time."""
    path = out / TOKENS
    if not path.exists():
        books = read_books(text or data_file("text/books_train.txt.gz"))
        chosen = [book for book in books if for_children(book)] or books
        out.mkdir(parents=True, exist_ok=True)
        np.save(path, tokenize(chosen, SOURCE / "tokenizer.json")[0])
    ids: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return ids


def windows_at(ids: np.ndarray, step: int, options: Options, length: int) -> Tensor:
    """The windows [batch, length] of one step; a function of seed and step alone."""
    starts = np.random.default_rng((options.seed, step)).integers(0, len(ids) - length, options.batch)
    return torch.from_numpy(np.stack([ids[start : start + length] for start in starts]).astype(np.int64))


def dense_weights() -> dict[str, Tensor]:
    """The weights of anybit-tiny in float32 without their prefix."""
    from safetensors.torch import load_file

    return {k.removeprefix("model."): v.float() for k, v in load_file(SOURCE / "model.safetensors").items()}
