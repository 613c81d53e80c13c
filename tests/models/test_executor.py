"""`TorchExecutor` against transformers in float32 on random models of every family, and against itself fed in pieces."""

from __future__ import annotations

import pytest
import torch
from tests.models.conftest import MODELS

from anybit import models
from anybit.errors import AnybitError
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


def executor(tiny_model, **options):
    model = models.load(tiny_model("llama")[1])
    return TorchExecutor(model.plan, model.weights, **options)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda e: e.forward([]), "at least one token id"),
        (lambda e: e.forward([[1, 2]]), "at least one token id"),
        (lambda e: e.forward([131]), "within 0 and 130; got 131"),
        (lambda e: e.forward([-1]), "within 0 and 130; got -1"),
        (lambda e: e.forward([1] * 97), "at most 96 positions; 97 were asked for"),
        (lambda e: e.forward([1], "first"), "'last' or 'all'; got 'first'"),
        (lambda e: e.truncate(1), "cannot keep 1 of 0 tokens"),
    ],
)
def test_refusals(tiny_model, call, sentence):
    with pytest.raises(AnybitError, match=sentence):
        call(executor(tiny_model))


def test_last_is_the_last_of_all(tiny_model):
    run = executor(tiny_model)
    whole = run.forward(ids(), "all")
    run.reset()
    assert run.position == 0
    assert torch.allclose(run.forward(ids()), whole[-1:], atol=1e-5) and run.position == TOKENS


def test_weights_need_not_be_kept(tiny_model):
    assert torch.equal(executor(tiny_model, keep=False).forward(ids()), executor(tiny_model).forward(ids()))


def test_lower_precision_is_close(tiny_model):
    exact = executor(tiny_model).forward(ids(), "all")
    for options in ({"compute_dtype": torch.bfloat16}, {"cache_dtype": torch.float16}):
        rough = executor(tiny_model, **options).forward(ids(), "all")
        assert 0 < (rough - exact).norm() < 0.05 * exact.norm()


def test_hook_sees_the_input_of_every_linear(tiny_model):
    model = models.load(tiny_model("llama")[1])
    seen = {}
    TorchExecutor(model.plan, model.weights, on_linear=lambda ref, x: seen.__setitem__(ref, x.shape)).forward(ids())
    linears = [op for op in model.plan.ops if op.kind == "linear"]
    assert list(seen) == [op.weights[0] for op in linears]
    assert seen[linears[0].weights[0]] == (TOKENS, 48) and seen[linears[-1].weights[0]] == (1, 48)


def test_longrope_beyond_its_original_context(tmp_path, tiny_model):
    """`context` picks the long factors; transformers picks them by the length it is fed."""
    reference, path = tiny_model("phi3_short")
    tokens = ids(n=80)
    with pytest.raises(AnybitError, match="at most 64 positions"):
        short = models.load(path)
        TorchExecutor(short.plan, short.weights).forward(tokens)
    model = models.load(path, context=80)
    with torch.no_grad():
        expected = reference(tokens[None]).logits[0]
    got = TorchExecutor(model.plan, model.weights).forward(tokens, "all")
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
