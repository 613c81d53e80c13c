"""A block as the trainer sees it: with the weights it had, its outputs are the walk's."""

import torch

from anybit import models
from anybit.quantize.rounded_inputs import Inputs
from anybit.quantize.rounded_inputs import rounding as rounding_of
from anybit.recipes.reconstruction import Block, rounding
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


def test_inputs_of_the_named_weights_alone_are_rounded(tmp_path) -> None:
    model = models.load(write_model(tmp_path / "model"))
    parts = segments(model.plan)
    held, walk, after = Held(model.weights), Walk(model.plan, [torch.arange(16)]), Walk(model.plan, [torch.arange(16)])
    walk.advance(parts[1][0], held)
    after.advance(parts[1][1], held)
    names = {f"model.layers.0.{name}.weight" for name in ("mlp.up_proj", "self_attn.q_proj")}
    errors = []
    for act, rounded in (("int8/row", names), ("int2n/row", names), ("int2n/row", set())):
        setting = rounding(rounding_of(Inputs(act)), rounded)
        block = Block(model.plan, parts[1], walk.states, after.states, held, setting)
        with torch.no_grad():
            errors.append(float((block.forward({}, [0]) - block.targets([0])).norm()))
    assert 0 < errors[0] < errors[1] and errors[2] < 1e-4
    assert rounding(None, names) is None
