"""Mistral (Jiang et al., arXiv 2310.06825): Llama with a sliding window on every layer."""

from __future__ import annotations

from anybit.models.config import Config
from anybit.models.families.decoder import Decoder, sizes
from anybit.models.rope import rope, rope_parameters


def mistral(config: Config, context: int | None) -> Decoder:
    """Mistral 7B and its successors with dense layers; `sliding_window` null means none, absent 4096."""
    shape = sizes(config, kv_heads=8)
    positions = config.integer("max_position_embeddings", 4096 * 32)
    table = rope(rope_parameters(config), shape.head_dim, positions, context)
    window = int(config.optional_number("sliding_window", 4096))
    return Decoder(
        shape,
        max_positions=positions,
        windows=(window,) * shape.layers,
        ropes=(table,) * shape.layers,
        eps=config.number("rms_norm_eps", 1e-6),
        activation=config.text("hidden_act", "silu"),
        tied=config.flag("tie_word_embeddings"),
        attention_scale=shape.head_dim**-0.5,
    )
