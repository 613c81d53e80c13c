"""Lowering: what a decoder's data become in a plan (that the plans compute the right thing is tests/models/test_executor.py)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from anybit.errors import UnsupportedModelError
from anybit.models.config import Config
from anybit.models.families import FAMILIES, lower
from anybit.models.families.decoder import Decoder, Sizes, sizes
from anybit.models.plan import WeightRef
from anybit.models.rope import Rope

SMALL = Sizes(hidden=8, intermediate=12, layers=2, heads=4, kv_heads=2, head_dim=2, vocab=11)
ONE, OTHER = Rope(torch.ones(1)), Rope(torch.zeros(1), limit=5)
PLAIN = Decoder(SMALL, 32, (0, 4), (ONE, ONE), 1e-5, "silu", False, 0.5)
CONFIG = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 11,
}


def kinds(plan, start, stop):
    return [op.kind for op in plan.ops[start:stop]]


def test_blocks_cover_the_layers():
    plan = PLAIN.lower()
    assert plan.blocks == ((1, 14), (14, 27)) and plan.layers == 2 and plan.head_dim == 2
    assert kinds(plan, *plan.blocks[0]) == [
        "rms_norm", *["linear"] * 3, "rope", "rope", "attention", "linear", "rms_norm", "linear", "linear", "glu", "linear",
    ]  # fmt: skip
    assert kinds(plan, 27, len(plan.ops)) == ["last", "rms_norm", "linear"]
    assert [op.attrs["window"] for op in plan.ops if op.kind == "attention"] == [0, 4]


def test_tied_fused_and_post_norms():
    plan = dataclasses.replace(
        PLAIN, tied=True, fused=True, post_norms=True, head_norms=True, logit_softcap=3.0
    ).lower()
    assert plan.ops[-2].weights == plan.ops[0].weights and plan.ops[-1].kind == "softcap"
    q, k, v = (op for op in plan.ops[:6] if op.kind == "linear")
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert [op.weights[0] for op in (q, k, v)] == [WeightRef(name, rows) for rows in ((0, 8), (8, 12), (12, 16))]
    assert plan.weight_shapes()[name] == (16, 8)
    assert plan.weight_shapes()["model.layers.1.mlp.gate_up_proj.weight"] == (24, 8)
    assert plan.weight_shapes()["model.layers.1.self_attn.q_norm.weight"] == (2,)
    assert kinds(plan, *plan.blocks[0])[-3:] == ["linear", "rms_norm", "add"]
    assert not any(op.attrs.get("accumulate") for op in plan.ops)


def test_equal_tables_are_shared_and_limits_bind():
    assert list(PLAIN.lower().constants) == ["rope.0"] and PLAIN.lower().max_positions == 32
    plan = dataclasses.replace(PLAIN, ropes=(ONE, OTHER)).lower()
    assert list(plan.constants) == ["rope.0", "rope.1"] and plan.max_positions == 5


def test_sizes_and_their_defaults():
    assert sizes(Config(CONFIG)) == SMALL
    assert sizes(Config({**CONFIG, "num_key_value_heads": None})).kv_heads == 4
    assert sizes(Config(CONFIG), head_dim=6).head_dim == 6


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads evenly"),
        ({"hidden_size": 9}, "hidden_size 9 is not a multiple of 4 attention heads"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"hidden_act": "relu2"}, "activation 'relu2' is not supported; supported are silu"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is not supported"),
    ],
)
def test_refusals(changes, sentence):
    with pytest.raises(UnsupportedModelError, match=sentence):
        lower({"model_type": "llama", **CONFIG, **changes})


def test_unknown_architectures():
    with pytest.raises(
        UnsupportedModelError, match="'bert' is not supported; supported are " + ", ".join(sorted(FAMILIES))
    ):
        lower({"model_type": "bert"})
    with pytest.raises(UnsupportedModelError, match="without model_type"):
        lower({})
    with pytest.raises(UnsupportedModelError, match="at least 1; got 0"):
        lower({"model_type": "llama", **CONFIG}, context=0)
