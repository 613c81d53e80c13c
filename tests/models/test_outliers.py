"""Injected outliers leave the logits of every family as they are, and make the activations heavy-tailed where they should be."""

from dataclasses import replace

import pytest
import torch
from tests.models.conftest import MODELS

from anybit import models
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor, inject_outliers
from anybit.models.activations import activation_tails
from anybit.models.fold_graph import sites
from anybit.models.outliers import KINDS, picked, write
from anybit.models.weights import MemoryEntry, WeightStore
from anybit.tensors import quantize

IDS = [3, 90, 17, 17, 64, 5, 121, 44, 8, 30, 77, 12]


def logits(model):
    return TorchExecutor(model.plan, model.weights).forward(IDS, "all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_stay(tiny_model, name, kind):
    model = models.load(tiny_model(name)[1])
    changed = inject_outliers(model, fraction=0.1, scale=20.0, kinds=(kind,))
    before, after = logits(model), logits(changed)
    assert (after - before).norm() <= 1e-5 * before.norm()
    assert any(isinstance(entry, MemoryEntry) for entry in changed.weights.entries.values())


@pytest.mark.parametrize("name", ["phi3", "gemma3", "qwen3", "llama_biases_tied"])
def test_all_kinds_together_and_twice(tiny_model, name):
    model = models.load(tiny_model(name)[1])
    changed = inject_outliers(inject_outliers(model, 0.2, 8.0), 0.2, 60.0, seed=1)
    before, after = logits(model), logits(changed)
    assert (after - before).norm() <= 1e-5 * before.norm()


def test_a_power_of_two_keeps_bfloat16_exact():
    model = models.load("anybit-tiny")
    changed = inject_outliers(model, 0.02, 32.0)
    assert all(changed.weights.dtype(name) == torch.bfloat16 for name in changed.weights.names())
    assert (
        inject_outliers(model, 0.02, 20.0, ("ud",)).weights.dtype("model.layers.0.mlp.up_proj.weight") == torch.float32
    )
    ids = model.tokenizer.encode("Once upon a time there was a fox who")
    before, after = (TorchExecutor(m.plan, m.weights).forward(ids, "all") for m in (model, changed))
    assert (after - before).norm() <= 1e-5 * before.norm()


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("norm", "model.layers.2.self_attn.q_proj.weight"),
        ("norm", "model.layers.2.mlp.gate_proj.weight"),
        ("qk", "keys.3"),
        ("vo", "model.layers.3.self_attn.o_proj.weight"),
        ("ud", "model.layers.3.mlp.down_proj.weight"),
    ],
)
def test_the_tails_grow_where_outliers_are_put(kind, place):
    model = models.load("anybit-tiny")
    ids = model.tokenizer.encode((model.path / "heldout.txt").read_text(encoding="utf-8")[:1500])
    before = activation_tails(model, ids)
    after = activation_tails(inject_outliers(model, 0.02, 32.0, (kind,)), ids)
    assert after[place].kurtosis > 3 * before[place].kurtosis
    assert after[place].max_to_median > 3 * before[place].max_to_median
    elsewhere = {"norm": "vo", "qk": "ud", "vo": "ud", "ud": "vo"}[kind]
    other = f"model.layers.3.{'mlp.down' if elsewhere == 'ud' else 'self_attn.o'}_proj.weight"
    assert after[other].kurtosis == pytest.approx(before[other].kurtosis, rel=1e-3)


def test_fused_rows_are_scaled_apart(tiny_model):
    """Phi-3 keeps q, k, v in one tensor: a norm's reader columns are divided once for each, not three times."""
    model = models.load(tiny_model("phi3")[1])
    changed = inject_outliers(model, 0.01, 4.0, ("norm",))
    name = "model.layers.0.self_attn.qkv_proj.weight"
    ratio = changed.weights.get(name) / model.weights.get(name)
    assert set(ratio.flatten().tolist()) == {1.0, 0.25}
    assert (ratio == 0.25).all(0).sum() == 1 and (ratio == 0.25).any(0).sum() == 1


def test_norms_of_all_layers_share_their_channels_and_keys_come_in_pairs(tiny_model):
    plan = models.load(tiny_model("llama")[1]).plan
    norms = [site for site in sites(plan) if site.kind == "norm"]
    assert len({tuple(picked(site, 0.1, 0)) for site in norms}) == 1 and len(norms) == 7
    assert picked(norms[0], 0.1, 0) != picked(norms[0], 0.1, 1)
    key = next(site for site in sites(plan) if site.kind == "qk")
    assert key.made[0].index.shape == (plan.head_dim // 2, 2)
    assert key.made[0].index[1].tolist() == [1, 1 + plan.head_dim // 2]


def test_a_tied_head_keeps_its_norm(tiny_model):
    """Columns of a tied matrix cannot be divided: the embedding would change."""
    plan = models.load(tiny_model("qwen3_tied")[1]).plan
    assert len([site for site in sites(plan) if site.kind == "norm"]) == 2 * plan.layers


def test_written_directory_loads_with_equal_logits(tiny_model, tmp_path):
    model = inject_outliers(models.load(tiny_model("gemma2")[1]), 0.1, 16.0)
    write(model, tmp_path / "out", provenance={"why": "test"})
    again = models.load(tmp_path / "out", verify=True)
    assert torch.equal(logits(again), logits(model))


def test_equal_arguments_give_equal_tensors(tiny_model):
    model = models.load(tiny_model("llama")[1])
    a, b = (inject_outliers(model, 0.1, 16.0) for _ in range(2))
    assert all(torch.equal(a.weights.get(name), b.weights.get(name)) for name in a.weights.names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fraction": 0.0}, "fraction .* got 0"),
        ({"fraction": 0.6}, "at most at 0.5"),
        ({"scale": -1.0}, "above 0; got -1"),
        ({"scale": float("nan")}, "got nan"),
        ({"kinds": ("norm", "head")}, "norm, qk, vo, ud; got head"),
        ({"kinds": ()}, "got none"),
        ({"scale": 1e39}, "infinite"),
    ],
)
def test_senseless_arguments_are_refused(tiny_model, arguments, message):
    with pytest.raises(RecipeError, match=message):
        inject_outliers(models.load(tiny_model("llama")[1]), **arguments)


def test_a_quantized_model_is_refused(tiny_model):
    model = models.load(tiny_model("llama")[1])
    name = "model.layers.0.self_attn.q_proj.weight"
    q = quantize(model.weights.get(name), TensorFormat.parse("int8/row"))
    entries = {k: v for k, v in model.weights.entries.items() if k != name}
    stem = name.removesuffix(".weight")
    entries |= {f"{stem}.{part}": MemoryEntry(value) for part, value in q.tensors().items()}
    store = WeightStore(entries, {name: (q.format, q.shape)}, model.weights.aliases)
    with pytest.raises(RecipeError, match=r"q_proj.weight is quantized \(int8/row\)"):
        inject_outliers(replace(model, weights=store))
