"""The numbers formats are compared on: samples of distributions, and the weights of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import AnybitError

LEAST_ELEMENTS = 4096
WEIGHTS = 65_536
"""Weights looked at, at most."""


def distributions(model: str | None) -> dict[str, NDArray[np.float64]]:
    """name -> numbers: gaussian and laplace, and where a model is named the weights of its matrices, each of unit variance."""
    from anybit.formats.measures import sample

    found = {name: sample(name) for name in ("gaussian", "laplace")}
    if model is not None:
        found[model.rstrip("/").rsplit("/", 1)[-1]] = weights(model)
    return found


def weights(model: str) -> NDArray[np.float64]:
    """Evenly picked weights of the matrices of a model (a directory, or the name of a bundled one), each matrix scaled to unit variance."""
    import torch

    from anybit import models

    store = models.load(model).weights
    matrices: list[Any] = []
    for name in store.names():
        if len(store.shape(name)) == 2 and np.prod(store.shape(name)) >= LEAST_ELEMENTS:
            stored = store.get(name)
            matrices.append((stored if isinstance(stored, torch.Tensor) else stored.dequantize()).float().flatten())
    if not matrices:
        raise AnybitError(f"{model} has no weight matrix of {LEAST_ELEMENTS} or more elements to compare formats on")
    each = max(1, WEIGHTS // len(matrices))
    picked = [m[:: max(1, m.numel() // each)][:each].double() / m.double().std() for m in matrices]
    together: NDArray[np.float64] = torch.cat(picked).numpy()
    return together


def model_or_none(name: str) -> str | None:
    """The model of that name, or None for `none`."""
    return None if name == "none" else name
