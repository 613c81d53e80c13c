"""Llama configs as found in the wild."""

from anybit.models.families import lower

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 50,
}


def test_a_config_of_llama_2_as_published():
    plan = lower(
        {"model_type": "llama", **SIZES, "rope_scaling": None, "rms_norm_eps": 1e-05, "tie_word_embeddings": False}
    )
    assert plan.kv_heads == 8 and plan.head_dim == 8 and plan.max_positions == 2048
    assert plan.ops[1].attrs["eps"] == 1e-5
    assert "lm_head.weight" in plan.weight_names() and not any(".bias" in name for name in plan.weight_names())


def test_biases():
    names = lower({"model_type": "llama", **SIZES, "attention_bias": True, "mlp_bias": True}).weight_names()
    for layer in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        assert f"model.layers.1.{layer}.bias" in names
