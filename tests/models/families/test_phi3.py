"""Phi-3: fused matrices by rows, the old names of longrope, partial rotation."""

import pytest

from anybit.models.families import lower

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 50,
}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize("kind", ["su", "yarn", "longrope"])
def test_longrope_under_all_its_names(kind):
    config = {"model_type": "phi3", **SIZES, "rope_scaling": {"type": kind, **LONG}, "max_position_embeddings": 8192}
    short, long = lower(config), lower(config, context=8192)
    assert (short.max_positions, long.max_positions) == (4096, 8192)
    assert (short.constants["rope.0"] == 2 * long.constants["rope.0"]).all()


def test_partial_rotation():
    plan = lower({"model_type": "phi3", **SIZES, "partial_rotary_factor": 0.75})
    assert len(plan.constants["rope.0"]) == 3
    assert plan.weight_shapes()["model.layers.0.self_attn.qkv_proj.weight"] == (192, 64)
