"""Models that exist only as a shape, for measuring speed with random weights."""

from __future__ import annotations

from typing import Any

from anybit.errors import AnybitError

COMMON: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "bfloat16",
}

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
    # the shape of SmolLM2-135M: 134.5 M parameters
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    # eight layers as wide as TinyLlama's, with 8 heads of keys and values: 492 M parameters, 426 M of which a token reads
    "0.5b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 8,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
    # the shape of TinyLlama-1.1B: 1100 M parameters
    "1.1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
}


def config(name: str) -> dict[str, Any]:
    """The Hugging Face config of a shape; AnybitError naming those that exist."""
    if name not in SHAPES:
        raise AnybitError(f"unknown synthetic model {name!r}; there are {', '.join(SHAPES)}")
    return COMMON | SHAPES[name]


def weights(found: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Checkpoint name and shape of every tensor of a Llama config."""
    width, ffn, vocabulary = found["hidden_size"], found["intermediate_size"], found["vocab_size"]
    head = found.get("head_dim") or width // found["num_attention_heads"]
    rows, kv_rows = found["num_attention_heads"] * head, found["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for block in range(found["num_hidden_layers"]):
        prefix = f"model.layers.{block}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (width,),
            f"{prefix}.self_attn.q_proj.weight": (rows, width),
            f"{prefix}.self_attn.k_proj.weight": (kv_rows, width),
            f"{prefix}.self_attn.v_proj.weight": (kv_rows, width),
            f"{prefix}.self_attn.o_proj.weight": (width, rows),
            f"{prefix}.post_attention_layernorm.weight": (width,),
            f"{prefix}.mlp.gate_proj.weight": (ffn, width),
            f"{prefix}.mlp.up_proj.weight": (ffn, width),
            f"{prefix}.mlp.down_proj.weight": (width, ffn),
        }
    shapes["model.norm.weight"] = (width,)
    if not found["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocabulary, width)
    return shapes


def parameters(found: dict[str, Any]) -> int:
    """How many parameters the config has."""
    total = 0
    for shape in weights(found).values():
        product = 1
        for side in shape:
            product *= side
        total += product
    return total
