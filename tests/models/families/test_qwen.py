"""Qwen2's biases and windows by layer; Qwen3's head norms and its own head size."""

import pytest

from anybit.models.families import lower

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "vocab_size": 50,
}


def windows(plan):
    return [op.attrs["window"] for op in plan.ops if op.kind == "attention"]


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"sliding_window": 9}, [0, 0, 0, 0]),
        ({"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 3}, [0, 0, 0, 9]),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 9,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            [9, 0, 9, 0],
        ),
    ],
)
def test_windows(given, expected):
    assert windows(lower({"model_type": "qwen2", **SIZES, **given})) == expected


def test_biases_and_norms():
    names = lower({"model_type": "qwen2", **SIZES}).weight_names()
    assert "model.layers.0.self_attn.q_proj.bias" in names and "model.layers.0.self_attn.o_proj.bias" not in names
    plan = lower({"model_type": "qwen3", **SIZES})
    assert plan.head_dim == 128 and plan.weight_shapes()["model.layers.0.self_attn.k_norm.weight"] == (128,)
    assert not any(".bias" in name for name in plan.weight_names())
