"""Train `dllm`, the zoo's masked-diffusion language model, from the weights of `anybit-tiny`.

    python -m anybit.zoo.train_dllm --out DIR [--text books.txt]

The causal mask is dropped, a mask token added, and the model learns to fill in masks at every share of them (LLaDA: t uniform in 0..1,
every token masked with probability t, cross entropy of the masked ones over t).  Reads the books of the shared data, or another text of
one paragraph a line.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from anybit.zoo import language, training
from anybit.zoo.architectures.masked_lm import MaskedLM, bound
from anybit.zoo.books import dense_weights, token_file, windows_at
from anybit.zoo.networks import silent
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=300, lr=1e-3, warmup=20, batch=16, save_every=50)
LENGTH = 256


def loss(model: nn.Module, step: int, *, ids: np.ndarray, options: Options) -> Tensor:
    """The bound of a step's windows; the shares of masks are spread evenly over 0..1, which lowers the variance."""
    assert isinstance(model, MaskedLM)
    device = model.embed_tokens.weight.device
    window = windows_at(ids, step, options, LENGTH).to(device)
    generator = torch.Generator().manual_seed((options.seed << 32) + step)
    share = (torch.rand((), generator=generator) + torch.arange(options.batch) / options.batch) % 1
    draws = torch.rand(window.shape, generator=generator)
    return bound(model, window, share.to(device), draws.to(device), model.mask)


def score(model: nn.Module) -> dict[str, float]:
    """The member's metric."""
    model = model.cpu()
    return {"elbo": language.masked_score(model, silent)}


def initial() -> MaskedLM:
    """The model with the dense weights; the mask's row is the mean of all tokens'."""
    model = MaskedLM()
    state = dense_weights()
    table = state["embed_tokens.weight"]
    state["embed_tokens.weight"] = torch.cat([table, table.mean(0, keepdim=True)])
    state["head.weight"] = state["embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def task(options: Options, text: Path | None, out: Path) -> Task:
    """The training as data."""
    torch.manual_seed(options.seed)
    ids = token_file(text, out)
    return Task(initial(), partial(loss, ids=ids, options=options), score, training.adamw, average=0.98)


def main(arguments: list[str] | None = None) -> None:
    p = training.parser(__doc__, DEFAULTS)
    p.add_argument(
        "--text", type=Path, help="plain text, one paragraph a line; the books of the shared data by default"
    )
    args: argparse.Namespace = p.parse_args(arguments)
    options = training.options(args)
    training.run(task(options, args.text, args.out), options, args.out)


if __name__ == "__main__":
    main()
