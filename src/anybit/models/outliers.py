"""Outliers put into a model that has none of its own, without changing what it computes.

Above a few billion parameters, activations have a few channels of large values in almost every layer (Dettmers et al., arXiv 2208.07339;
Xiao et al., arXiv 2211.10438), and keys have them in fixed channels (arXiv 2403.20137).  Small models do not, so methods against outliers
have nothing to do on them.  Wherever two linear steps meet, a channel can be multiplied by c in the first and divided by c in the second;
what flows between them then has an outlier channel, and the logits stay as they are:

| kind | between | multiplied | divided |
|------|---------|------------|---------|
| norm | a norm and the linears reading it | gain of the channel | columns of every reader |
| qk   | queries and keys of one head | rows of W_k (gain of a key norm) | rows of W_q of the group (gain of the query norm) |
| vo   | values and the output projection | rows of W_v | columns of W_o of every head of the group |
| ud   | up and down projection | rows of W_up | columns of W_down |

`fold_graph` finds these places.  Stored values that stay exact keep their dtype, as they do where c is a power of two and nothing is added
to a gain; else they become float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anybit.errors import RecipeError
from anybit.models.checkpoint import CheckpointWriter
from anybit.models.fold_graph import Site, sites
from anybit.models.loading import Model
from anybit.models.rewriting import Rewrite

KINDS = ("norm", "qk", "vo", "ud")

NOTE = "anybit_outliers"
"""The entry of config.json that says what was injected."""


def inject_outliers(
    model: Model, fraction: float = 0.01, scale: float = 16.0, kinds: Sequence[str] = KINDS, seed: int = 0
) -> Model:
    """The model with outlier channels and the same logits: changed tensors in its store, a note in its config, its files not touched.

    fraction: share of the channels of each place that become outliers, at least one, at most half.  scale: how many times larger.
    kinds: where; see the module.  seed: which channels.  Equal arguments give equal tensors.
    Raises RecipeError for a fraction, scale or kind that makes no sense, a quantized model, one without any such place, and values that
    leave the range of their dtype.
    """
    if not 0 < fraction <= 0.5:
        raise RecipeError(f"the fraction of outlier channels must lie above 0 and at most at 0.5; got {fraction:g}")
    if not (math.isfinite(scale) and scale > 0):
        raise RecipeError(f"the scale of outliers must be a number above 0; got {scale:g}")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise RecipeError(f"outliers are injected at {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}")
    found = [site for site in sites(model.plan) if site.kind in kinds]
    if not found:
        raise RecipeError(f"{model.path} has no place for outliers of the kinds {', '.join(kinds)}")
    work = Rewrite(model.weights)
    for site in found:
        factors = torch.ones(site.units, dtype=torch.float64)
        factors[picked(site, fraction, seed)] = scale
        work.scale(site, factors)
    note = {"fraction": fraction, "scale": scale, "kinds": list(kinds), "seed": seed}
    config = {**model.config, NOTE: [*model.config.get(NOTE, []), note]}
    return replace(model, weights=work.store(memory=True), config=config)


def write(model: Model, out: Path | str, overwrite: bool = False, provenance: Mapping[str, Any] | None = None) -> int:
    """Write a model whose tensors may lie in memory as a directory beside its own config and tokenizer; bytes of its tensors."""
    with CheckpointWriter(out, model.path, overwrite=overwrite, config=model.config) as writer:
        for name in model.plan.weight_names():
            writer.put(name, model.weights.get(name))
        return writer.finish(provenance=provenance)


def picked(site: Site, fraction: float, seed: int) -> list[int]:
    """The units of a site that become outliers, ascending."""
    mixed = sum((i + 1) * ord(c) for i, c in enumerate(site.key)) + 7919 * site.units
    generator = torch.Generator().manual_seed(seed * 1_000_003 + mixed)
    count = max(1, round(fraction * site.units))
    return sorted(torch.randperm(site.units, generator=generator)[:count].tolist())
