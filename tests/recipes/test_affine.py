"""Where the transforms of a model's blocks begin: no worse than all at Hadamard matrices and than all at none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from anybit import models
from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor
from anybit.models.evaluation import divergence
from anybit.models.interpreter import as_float
from anybit.quantize.batquant import round_activations
from anybit.recipes import affine, items
from anybit.recipes.affine import starts
from anybit.tensors import quantize
from anybit.transforms import block_affine
from anybit.transforms.block_affine import Options

OPTIONS = Options(block=4, shared=2, act="int4/g4")
FOUR = TensorFormat.parse("int4/g4")


def shown() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randint(0, 131, (48,), generator=g) for _ in range(8)]


def outlying(path: Path, kinds: tuple[str, ...]) -> tuple[Model, dict[str, str]]:
    model = models.inject_outliers(models.load(path), 0.03, 64.0, kinds, seed=3)
    return model, dict.fromkeys((item.name for item in items.quantizable(model)), "int4/g4")


def far(model: Model, chosen: dict[str, str]) -> float:
    """The divergence with dense matrices in the place of the transforms."""
    weights = {name: as_float(model.weights.get(name)) for name in model.weights.names()}
    key = {
        name: place.before[0]
        for place in affine.places(model.plan, dict.fromkeys(weights, "int4/g4"), OPTIONS)
        for name in place.before
    }

    def multiply(site: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if site not in key:
            return x @ w.T
        p = block_affine.start(w.shape[1], replace(OPTIONS, start=chosen[key[site]])).matrix()
        return round_activations(x @ p, FOUR) @ quantize(w @ torch.linalg.inv(p).T, FOUR).dequantize().T

    windows = [window.tolist() for window in shown()[::2]]
    exact = TorchExecutor(model.plan, model.weights)
    return divergence(TorchExecutor(model.plan, model.weights, multiply=multiply), exact, windows).kl


@pytest.mark.parametrize("kinds", [("norm", "ud", "vo"), ("ud",)])
def test_no_worse_than_all_alike(kinds: tuple[str, ...], model: Path) -> None:
    outliers, formats = outlying(model, kinds)
    told: list[str] = []
    chosen = starts(outliers, formats, shown(), OPTIONS, lambda share, what: told.append(what))
    first = [place.before[0] for place in affine.places(outliers.plan, formats, OPTIONS)]
    assert list(chosen) == first and set(chosen.values()) <= {"hadamard", "identity"}
    assert len(told) == 2 + len(first) and told[-1].endswith(f"tried {len(told)} of {len(told)} starts")
    alike = [far(outliers, dict.fromkeys(first, start)) for start in ("hadamard", "identity")]
    assert far(outliers, chosen) <= min(alike) * (1 + 1e-4)
    assert len(set(chosen.values())) == 2  # some of each here


def test_learning_begins_there(model: Path) -> None:
    outliers, formats = outlying(model, ("ud",))
    options = replace(OPTIONS, steps=0, clip=False)
    first = [place.before[0] for place in affine.places(outliers.plan, formats, options)]
    begin = {key: ("hadamard", "identity")[number % 2] for number, key in enumerate(first)}
    found = affine.learned(outliers, formats, shown(), options, begin, lambda _: None, lambda *_: None, lambda *_: None)
    for place in affine.places(outliers.plan, formats, options):
        start = replace(options, start=begin[place.before[0]])
        got = affine.affine_of(place, found)
        torch.testing.assert_close(got.matrix(), block_affine.start(got.width, start).matrix(), rtol=1e-3, atol=1e-3)
