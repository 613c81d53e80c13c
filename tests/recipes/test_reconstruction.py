"""A block as the trainer sees it: with the weights it had, its outputs are the walk's."""

import torch

from anybit import models
from anybit.recipes.reconstruction import Block
from anybit.recipes.walk import Held, Walk, segments

from .conftest import weights, write_model


def test_forward_with_the_models_own_weights_gives_the_targets(tmp_path) -> None:
    model = models.load(write_model(tmp_path / "model"))
    ids = [torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n)) for n in (20, 20, 13)]
    parts = segments(model.plan)
    held, walk, after = Held(model.weights), Walk(model.plan, ids), Walk(model.plan, ids)
    walk.advance(parts[1][0], held)
    after.advance(parts[1][1], held)
    block = Block(model.plan, parts[1], walk.states, after.states, held)
    name = "model.layers.0.mlp.up_proj.weight"
    own = {name: weights(tied=False)[name].float()}
    for windows in ([0], [0, 1], [2, 0, 1]):
        wanted = block.targets(windows)
        assert wanted.shape == (sum(len(ids[w]) for w in windows), 32)
        torch.testing.assert_close(block.forward(own, windows), wanted, rtol=1e-5, atol=1e-5)
    other = block.forward({name: torch.zeros_like(own[name])}, [0])
    assert (other - block.targets([0])).norm() > 0.01


def test_gradients_reach_the_weights(tmp_path) -> None:
    model = models.load(write_model(tmp_path / "model"))
    parts = segments(model.plan)
    held, walk = Held(model.weights), Walk(model.plan, [torch.arange(16)])
    walk.advance(parts[1][0], held)
    name = "model.layers.0.self_attn.k_proj.weight"
    learned = weights(tied=False)[name].float().requires_grad_()
    block = Block(model.plan, parts[1], walk.states, walk.states, held)
    block.forward({name: learned}, [0]).square().sum().backward()
    assert learned.grad is not None and float(learned.grad.abs().max()) > 0
