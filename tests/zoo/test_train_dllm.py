"""The script of `dllm` starts from the story model, repeats itself bit by bit, and repeats the run whose weights are bundled."""

import math

import pytest
import torch

from anybit.zoo import train_dllm
from anybit.zoo.books import dense_weights
from anybit.zoo.training import Options


def test_an_interrupted_run_ends_in_the_same_bits(story, repeats, monkeypatch):
    monkeypatch.setattr(train_dllm, "score", lambda model: {})
    monkeypatch.setattr(train_dllm, "LENGTH", 32)
    losses = repeats(train_dllm, "--batch", "4", "--text", str(story))
    assert len(set(losses)) == 3


def test_it_starts_from_the_story_model():
    model, dense = train_dllm.initial(), dense_weights()
    assert torch.equal(model.layers[3].mlp.up_proj.weight, dense["layers.3.mlp.up_proj.weight"])
    table = model.embed_tokens.weight
    assert table.shape[0] == model.mask + 1 and torch.equal(table[:-1], dense["embed_tokens.weight"])
    torch.testing.assert_close(table[-1], dense["embed_tokens.weight"].mean(0))


def test_a_model_that_knows_nothing_pays_the_whole_vocabulary(monkeypatch):
    """With logits of zero the bound is log(vocabulary), whatever is masked: masks at probability p are paid 1/p."""
    model = train_dllm.initial()
    monkeypatch.setattr(model, "forward", lambda ids: torch.zeros(*ids.shape, model.mask))
    ids = torch.randint(0, model.mask, (4000,)).numpy()
    monkeypatch.setattr(train_dllm, "LENGTH", 64)
    options = Options(steps=1, lr=1, warmup=1, batch=32)
    found = torch.stack([train_dllm.loss(model, step, ids=ids, options=options) for step in range(8)]).mean().item()
    assert found == pytest.approx(math.log(model.mask), rel=0.05)


def test_in_bfloat16(story, in_bfloat16, monkeypatch):
    monkeypatch.setattr(train_dllm, "score", lambda model: {})
    monkeypatch.setattr(train_dllm, "LENGTH", 32)
    in_bfloat16(train_dllm, "--batch", "4", "--text", str(story))


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("dllm", train_dllm, "--precision", "bf16")
