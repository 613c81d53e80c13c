"""Both ways it sees; the bound is unbiased; generation fills every mask and keeps the prompt."""

import math

import pytest
import torch

from anybit.errors import AnybitError
from anybit.zoo.architectures.masked_lm import MaskedLM, bound, corrupt, generate
from anybit.zoo.train_lm import Config

TINY = Config(60, 32, 48, 2, 4, 2, 8, 64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MaskedLM(TINY).eval()


def test_a_token_sees_both_ways(model):
    ids = torch.randint(0, 60, (1, 20))
    changed = ids.clone()
    changed[0, 15] = (ids[0, 15] + 1) % 60
    with torch.no_grad():
        difference = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert difference[3] > 1e-6 and difference[19] > 1e-6


def test_the_mask_is_never_predicted_and_shares_the_table(model):
    assert model.mask == 60 and model(torch.tensor([[60, 1]])).shape == (1, 2, 60)
    assert model.head.weight is model.embed_tokens.weight


def test_attention_equals_the_causal_one_without_its_mask(model):
    """The last token of a sequence sees everything in both; with one layer its output must agree with the causal model."""
    from dataclasses import replace

    from anybit.zoo.train_lm import Llama

    one = replace(TINY, num_hidden_layers=1)
    both, causal = MaskedLM(one).eval(), Llama(replace(one, vocab_size=61)).eval()
    causal.load_state_dict({k: v for k, v in both.state_dict().items() if k != "head.weight"})
    ids = torch.randint(0, 60, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(both(ids)[:, -1], causal(ids)[:, -1, :60])


def test_corrupt():
    ids, draws = torch.zeros(3, 1000, dtype=torch.int64), torch.rand(3, 1000)
    noisy, p = corrupt(ids, torch.tensor([0.0, 0.5, 1.0]), draws, 60)
    assert p.flatten().tolist() == pytest.approx([0.001, 0.5005, 1.0])
    share = (noisy == 60).float().mean(1)
    assert share[0] < 0.01 and abs(share[1] - 0.5) < 0.06 and share[2] == 1.0


def test_the_bound_is_the_sum_of_what_its_definition_says(model):
    ids, share, draws = torch.randint(0, 60, (2, 6)), torch.tensor([0.3, 0.9]), torch.rand(2, 6)
    with torch.no_grad():
        found = bound(model, ids, share, draws, 60).item()
        noisy, p = corrupt(ids, share, draws, 60)
        logits = model(noisy).double().log_softmax(-1)
    expected = (
        -sum(logits[b, i, ids[b, i]].item() / p[b].item() for b in range(2) for i in range(6) if noisy[b, i] == 60) / 12
    )
    assert found == pytest.approx(expected, rel=1e-5) and math.isfinite(found)


@pytest.mark.parametrize(("length", "steps", "block"), [(20, 20, 8), (20, 7, 8), (5, 1, 32), (32, 4, 8)])
def test_generation_fills_every_mask(model, length, steps, block):
    prompt = torch.tensor([3, 1, 4])
    calls = []
    handle = model.register_forward_pre_hook(lambda module, args: calls.append((args[0] == 60).sum().item()))
    ids = generate(model, prompt, length, steps, block)
    handle.remove()
    assert torch.equal(ids[:3], prompt) and len(ids) == 3 + length and (ids < 60).all()
    assert len(calls) <= steps and calls == sorted(calls, reverse=True) and len(set(calls)) == len(calls)
    assert torch.equal(ids, generate(model, prompt, length, steps, block))


def test_the_surest_token_comes_first(model):
    prompt = torch.tensor([3, 1, 4])
    with torch.no_grad():
        p = model(torch.cat([prompt, torch.full((4,), 60)])[None])[0, 3:].softmax(-1)
    seen = []
    handle = model.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].clone()))
    generate(model, prompt, 4, 4)
    handle.remove()
    first = torch.nonzero(seen[1][3:] != 60).flatten()
    assert first.tolist() == [p.max(-1).values.argmax().item()]
    assert seen[1][3 + first] == p[first].argmax(-1)


def test_impossible_lengths_are_refused(model):
    with pytest.raises(AnybitError, match="67 tokens, and the model 64 positions"):
        generate(model, torch.tensor([1, 2, 3]), 64, 64)
    with pytest.raises(AnybitError, match="4 blocks need at least as many steps; got 3"):
        generate(model, torch.tensor([1]), 32, 3, block=8)
