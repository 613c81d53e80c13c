"""Mistral's sliding window: absent means 4096, null means none."""

import pytest

from anybit.models.families import lower

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 50,
}


@pytest.mark.parametrize("given, window", [({}, 4096), ({"sliding_window": None}, 0), ({"sliding_window": 7}, 7)])
def test_window(given, window):
    plan = lower({"model_type": "mistral", **SIZES, **given})
    assert [op.attrs["window"] for op in plan.ops if op.kind == "attention"] == [window, window]
    assert plan.kv_heads == 8
