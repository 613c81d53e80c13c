"""The layer against a loop over tokens; the split keeps the dense function where all experts count alike."""

import pytest
import torch

from anybit.zoo.architectures.experts import ACTIVE, EXPERTS, Experts, ExpertsLM, split
from anybit.zoo.train_lm import MLP, Config, Llama

TINY = Config(60, 32, 48, 2, 4, 2, 8, 64)


def test_a_loop_over_tokens_agrees():
    torch.manual_seed(0)
    layer, x = Experts(TINY), torch.randn(2, 9, 32)
    with torch.no_grad():
        found = layer(x)
        for b in range(2):
            for t in range(9):
                logits = layer.router(x[b, t])
                first, second = logits.argsort(descending=True)[:2].tolist()
                weights = torch.softmax(logits[[first, second]], 0)
                expected = weights[0] * layer.experts[first](x[b, t]) + weights[1] * layer.experts[second](x[b, t])
                torch.testing.assert_close(found[b, t], expected, atol=1e-6, rtol=1e-4)
    assert layer.counts.sum() == 2 * 9 * ACTIVE


def test_balance_is_one_where_all_get_the_same():
    layer = Experts(TINY)
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(EXPERTS, 32) * 50)
        layer(torch.eye(EXPERTS, 32)[:, None] + torch.eye(EXPERTS, 32).roll(1, 0)[:, None] * 0.9)
        assert layer.counts.tolist() == [2] * EXPERTS and layer.balance.item() == pytest.approx(1.0, abs=1e-4)
        layer(torch.ones(4, 1, 32) * torch.eye(EXPERTS, 32)[0])
        assert layer.balance.item() > 3  # all at one expert (and a second one that is nobody's wish)


def test_the_split_experts_add_up_to_the_dense_mlp():
    torch.manual_seed(0)
    dense = Llama(TINY)
    state = split(dense.state_dict(), TINY, 0.0, seed=1)
    model = ExpertsLM(TINY)
    model.load_state_dict(state)
    x = torch.randn(5, 32)
    with torch.no_grad():
        mlp, experts = dense.layers[1].mlp, model.layers[1].mlp
        assert isinstance(mlp, MLP) and isinstance(experts, Experts)
        together = sum(expert(x) for expert in experts.experts) * ACTIVE / EXPERTS
        torch.testing.assert_close(together, mlp(x), atol=1e-6, rtol=1e-4)
    noisy = split(dense.state_dict(), TINY, 0.1, seed=1)
    name = "layers.0.mlp.experts.3.up_proj.weight"
    assert (noisy[name] - state[name]).std() == pytest.approx(0.1 * state[name].std().item(), rel=0.2)


def test_it_is_causal():
    torch.manual_seed(0)
    model = ExpertsLM(TINY).eval()
    ids = torch.randint(0, 60, (1, 12))
    changed = ids.clone()
    changed[0, 8] = (ids[0, 8] + 1) % 60
    with torch.no_grad():
        difference = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert difference[:8].max() < 1e-6 and difference[8:].min() > 1e-5
    assert model.balance().item() > 0
