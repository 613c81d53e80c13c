"""`TorchExecutor` against transformers in float32 on random models of every family, and against itself fed in pieces."""

from __future__ import annotations

import pytest
import torch
from tests.models.conftest import MODELS

from anybit import models
from anybit.models import TorchExecutor

TOKENS = 41  # beyond every sliding window and past the original length of the scaled RoPE tables


def ids(seed: int = 1, n: int = TOKENS) -> torch.Tensor:
    return torch.randint(0, 131, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_logits_equal_transformers(name, tiny_model):
    reference, path = tiny_model(name)
    model = models.load(path)
    tokens = ids()
    with torch.no_grad():
        expected = reference(tokens[None]).logits[0]
    got = TorchExecutor(model.plan, model.weights).forward(tokens, "all")
    assert got.dtype == torch.float32 and got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_pieces_through_the_cache_equal_one_prefill(name, tiny_model):
    model = models.load(tiny_model(name)[1])
    executor = TorchExecutor(model.plan, model.weights)
    tokens = ids()
    whole = executor.forward(tokens, "all")
    executor.reset()
    pieces = [executor.forward(part, "all") for part in tokens.split([9, 1, 1, 17, 13])]
    assert torch.allclose(torch.cat(pieces), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    executor.truncate(20)
    assert executor.position == 20
    again = executor.forward(tokens[20:], "last")
    assert torch.allclose(again, whole[-1:], rtol=0, atol=1e-5 * float(whole.abs().max()))
