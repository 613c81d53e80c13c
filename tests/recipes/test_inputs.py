from pathlib import Path

import torch

from anybit import models
from anybit.recipes import items
from anybit.recipes.inputs import Inputs, sources


def test_matrices_behind_one_value_share_statistics(model: Path) -> None:
    loaded = models.load(model)
    found = {item.name: item for item in items.quantizable(loaded)}
    inputs = Inputs(loaded.plan, found.values())
    prefix = "model.layers.1"
    q, k, v, o = (inputs.of(found[f"{prefix}.self_attn.{n}_proj.weight"]) for n in "qkvo")
    gate, up, down = (inputs.of(found[f"{prefix}.mlp.{n}_proj.weight"]) for n in ("gate", "up", "down"))
    assert q is k is v and gate is up
    assert len({id(s) for s in (q, o, gate, down)}) == 4
    other = inputs.of(found["model.layers.0.self_attn.q_proj.weight"])
    assert other is not q


def test_each_value_is_added_once(model: Path) -> None:
    loaded = models.load(model)
    found = {item.name: item for item in items.quantizable(loaded)}
    inputs = Inputs(loaded.plan, found.values())
    read = sources(loaded.plan)
    q, k = found["model.layers.0.self_attn.q_proj.weight"], found["model.layers.0.self_attn.k_proj.weight"]
    assert read[q.ops[0]] == read[k.ops[0]]
    x = torch.randn(5, 32)
    inputs(q.ops[0], x)
    inputs(k.ops[0], x)
    assert inputs.of(q).tokens == 5
    torch.testing.assert_close(inputs.of(k).hessian, 2 * x.T @ x / 5)


def test_a_subset_has_a_leader_of_its_own(model: Path) -> None:
    loaded = models.load(model)
    found = {item.name: item for item in items.quantizable(loaded)}
    k = found["model.layers.0.self_attn.k_proj.weight"]
    inputs = Inputs(loaded.plan, [k, found["model.embed_tokens.weight"]])
    inputs(found["model.layers.0.self_attn.q_proj.weight"].ops[0], torch.ones(2, 32))
    assert inputs.of(k).tokens == 0
    inputs(k.ops[0], torch.ones(2, 32))
    assert inputs.of(k).tokens == 2
