"""Gemma 2 and 3: which layers slide, which RoPE base they use, and their defaults."""

import pytest

from anybit.errors import UnsupportedModelError
from anybit.models.families import lower

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,
    "vocab_size": 50,
}


def windows(plan):
    return [op.attrs["window"] for op in plan.ops if op.kind == "attention"]


def test_gemma2_defaults():
    plan = lower({"model_type": "gemma2", **SIZES})
    assert windows(plan) == [4096, 0, 4096, 0, 4096, 0, 4096]
    attention = next(op for op in plan.ops if op.kind == "attention")
    assert attention.attrs["softcap"] == 50 and attention.attrs["scale"] == 256**-0.5
    assert plan.ops[-1].kind == "softcap" and plan.ops[-1].attrs["cap"] == 30
    assert plan.ops[0].attrs["factor"] == 8 and plan.ops[1].attrs["offset"] == 1
    assert plan.head_dim == 256 and plan.kv_heads == 4


def test_gemma3_as_first_published():
    config = {"model_type": "gemma3_text", **SIZES, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    plan = lower({**config, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window": 512})
    assert windows(plan) == [512] * 5 + [0] + [512]
    tables = [plan.constants[op.attrs["table"]] for op in plan.ops if op.kind == "rope"][::2]
    assert float(tables[0][1]) == pytest.approx(1e4 ** (-2 / 256)) and float(tables[0][0]) == 1
    assert float(tables[5][1]) == pytest.approx(1e6 ** (-2 / 256) / 8) and float(tables[5][0]) == 1 / 8
    assert plan.ops[-1].kind == "linear"


def test_gemma3_pattern():
    assert windows(lower({"model_type": "gemma3_text", **SIZES, "sliding_window_pattern": 3, "sliding_window": 5})) == [
        5,
        5,
        0,
        5,
        5,
        0,
        5,
    ]


def test_bidirectional_attention_is_refused():
    with pytest.raises(UnsupportedModelError, match="use_bidirectional_attention is not supported"):
        lower({"model_type": "gemma3_text", **SIZES, "use_bidirectional_attention": True})
