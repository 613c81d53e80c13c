"""Llama (Touvron et al., arXiv 2302.13971 and the Llama 3 papers): the plain case of `Decoder`."""

from __future__ import annotations

from anybit.models.config import Config
from anybit.models.families.decoder import Decoder, sizes
from anybit.models.rope import rope, rope_parameters


def llama(config: Config, context: int | None) -> Decoder:
    """Llama 1 to 3, and models that use its code (SmolLM, TinyLlama, …)."""
    shape = sizes(config)
    positions = config.integer("max_position_embeddings", 2048)
    table = rope(rope_parameters(config), shape.head_dim, positions, context)
    bias = config.flag("attention_bias")
    return Decoder(
        shape,
        max_positions=positions,
        windows=(0,) * shape.layers,
        ropes=(table,) * shape.layers,
        eps=config.number("rms_norm_eps", 1e-6),
        activation=config.text("hidden_act", "silu"),
        tied=config.flag("tie_word_embeddings"),
        attention_scale=shape.head_dim**-0.5,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=config.flag("mlp_bias"),
    )
