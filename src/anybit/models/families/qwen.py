"""Qwen2 (arXiv 2407.10671) with biases on q, k and v; Qwen3 (arXiv 2505.09388) with head norms instead."""

from __future__ import annotations

from anybit.models.config import Config
from anybit.models.families.decoder import Decoder, sizes
from anybit.models.rope import rope, rope_parameters


def qwen2(config: Config, context: int | None) -> Decoder:
    """Qwen2 and Qwen2.5."""
    return _qwen(config, context, head_norms=False, qkv_bias=True, output_bias=False)


def qwen3(config: Config, context: int | None) -> Decoder:
    """Qwen3, dense."""
    bias = config.flag("attention_bias")
    return _qwen(config, context, head_norms=True, qkv_bias=bias, output_bias=bias)


def _qwen(config: Config, context: int | None, head_norms: bool, qkv_bias: bool, output_bias: bool) -> Decoder:
    shape = sizes(config, head_dim=128 if head_norms else None)
    layers = shape.layers
    positions = config.integer("max_position_embeddings", 32768)
    table = rope(rope_parameters(config), shape.head_dim, positions, context)
    window = int(config.optional_number("sliding_window", 4096)) if config.flag("use_sliding_window") else 0
    first = config.integer("max_window_layers", 28, least=0)
    sliding = [window > 0 and layer >= first for layer in range(layers)]
    kinds = config.layer_types(layers, ["sliding_attention" if slides else "full_attention" for slides in sliding])
    return Decoder(
        shape,
        max_positions=positions,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
        ropes=(table,) * layers,
        eps=config.number("rms_norm_eps", 1e-6),
        activation=config.text("hidden_act", "silu"),
        tied=config.flag("tie_word_embeddings"),
        attention_scale=shape.head_dim**-0.5,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        head_norms=head_norms,
    )
