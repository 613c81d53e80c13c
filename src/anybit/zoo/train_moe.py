"""Train `moe`, the zoo's mixture-of-experts language model, from the weights of `anybit-tiny`.

    python -m anybit.zoo.train_moe --out DIR [--text books.txt]

The FFN of every layer is split into eight experts, of which a router picks two.  Experts are trained unevenly on purpose, so that some
matter more and are better trained than others (what bit allocation among experts is about): expert i sees its gradients times PACE[i].
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo import language, training
from anybit.zoo.architectures.experts import Experts, ExpertsLM, split
from anybit.zoo.books import dense_weights, token_file, windows_at
from anybit.zoo.networks import silent
from anybit.zoo.train_lm import Config
from anybit.zoo.training import Options, Task

DEFAULTS = Options(steps=200, lr=1e-3, warmup=20, batch=16, save_every=50)
LENGTH = 256
PACE = (1.0, 1.0, 1.0, 1.0, 0.3, 0.3, 0.0, 0.0)
BALANCE = 0.003
"""Weight of the balance loss: enough that no expert is forgotten, too little to make them equal."""
PERTURBATION = 0.1
"""Noise added to an expert's weights, in their standard deviations."""


def loss(model: nn.Module, step: int, *, ids: np.ndarray, options: Options) -> Tensor:
    """Cross entropy of the next token, and the balance of the experts."""
    assert isinstance(model, ExpertsLM)
    window = windows_at(ids, step, options, LENGTH + 1).to(model.embed_tokens.weight.device)
    logits = model(window[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten()) + BALANCE * model.balance()


def score(model: nn.Module) -> dict[str, float]:
    """The member's metric."""
    return {"perplexity": language.perplexity(model.cpu(), silent)}


def initial(seed: int) -> ExpertsLM:
    """The split model, each expert's parameters slowed by its pace."""
    model = ExpertsLM()
    model.load_state_dict(split(dense_weights(), Config(), PERTURBATION, seed))
    for layer in model.layers:
        assert isinstance(layer.mlp, Experts)
        for expert, pace in zip(layer.mlp.experts, PACE, strict=True):
            for parameter in expert.parameters():
                parameter.requires_grad_(pace > 0)
                if 0 < pace < 1:
                    parameter.anybit_pace = pace  # type: ignore[attr-defined]
    return model


def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """AdamW; Adam undoes a factor on gradients, so a slow expert has a group with a slower rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = float(getattr(parameter, "anybit_pace", 1.0)), 0.05 if parameter.dim() > 1 else 0.0
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "weight_decay": decay, "pace": pace} for (pace, decay), params in groups.items()],
        lr=lr,
        betas=(0.9, 0.95),
    )


def task(options: Options, text: Path | None, out: Path) -> Task:
    """The training as data."""
    torch.manual_seed(options.seed)
    ids = token_file(text, out)
    return Task(initial(options.seed), partial(loss, ids=ids, options=options), score, optimizer, average=0.98)


def main(arguments: list[str] | None = None) -> None:
    p = training.parser(__doc__, DEFAULTS)
    p.add_argument(
        "--text", type=Path, help="plain text, one paragraph a line; the books of the shared data by default"
    )
    args = p.parse_args(arguments)
    options = training.options(args)
    training.run(task(options, args.text, args.out), options, args.out)


if __name__ == "__main__":
    main()
