"""Gemma 2 (arXiv 2408.00118) and the text decoder of Gemma 3 (arXiv 2503.19786): norms of gain 1 + w before and after each
sublayer, scaled embeddings, alternating sliding windows; Gemma 2 with soft caps, Gemma 3 with head norms and two RoPE bases.
"""

from __future__ import annotations

from anybit.errors import UnsupportedModelError
from anybit.models.config import Config
from anybit.models.families.decoder import Decoder, sizes
from anybit.models.rope import Rope, rope, rope_parameters


def gemma2(config: Config, context: int | None) -> Decoder:
    """Gemma 2: every other layer, beginning with the first, slides."""
    layers = config.integer("num_hidden_layers")
    positions = config.integer("max_position_embeddings", 8192)
    table = rope(rope_parameters(config), config.integer("head_dim", 256), positions, context)
    softcaps = (
        config.optional_number("attn_logit_softcapping", 50.0),
        config.optional_number("final_logit_softcapping", 30.0),
    )
    return _gemma(config, positions, _kinds(config, layers, 2), (table,) * layers, softcaps, head_norms=False)


def gemma3(config: Config, context: int | None) -> Decoder:
    """Gemma 3, text only: five sliding layers to one full; the full ones rotate with their own base."""
    layers = config.integer("num_hidden_layers")
    positions = config.integer("max_position_embeddings", 131072)
    head_dim = config.integer("head_dim", 256)
    kinds = _kinds(config, layers, 6)
    full = rope(rope_parameters(config, 1e6, "full_attention"), head_dim, positions, context)
    slow = {**config.values, "rope_scaling": None, "rope_theta": config.get("rope_local_base_freq")}
    local = rope(rope_parameters(Config(slow), 1e4, "sliding_attention"), head_dim, positions, context)
    ropes = tuple(full if kind == "full_attention" else local for kind in kinds)
    softcaps = config.optional_number("attn_logit_softcapping"), config.optional_number("final_logit_softcapping")
    return _gemma(config, positions, kinds, ropes, softcaps, head_norms=True)


def _kinds(config: Config, layers: int, default_pattern: int) -> list[str]:
    """Every `pattern`-th layer is full, the others slide."""
    found = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or default_pattern
    kinds = ["full_attention" if (layer + 1) % int(found) == 0 else "sliding_attention" for layer in range(layers)]
    return config.layer_types(layers, kinds)


def _gemma(
    config: Config,
    positions: int,
    kinds: list[str],
    ropes: tuple[Rope, ...],
    softcaps: tuple[float, float],
    head_norms: bool,
) -> Decoder:
    if config.flag("use_bidirectional_attention"):
        raise UnsupportedModelError(
            "config.json: use_bidirectional_attention is not supported; a plan decodes causally"
        )
    shape = sizes(config, head_dim=256, kv_heads=4)
    window = int(config.optional_number("sliding_window", 4096))
    bias = config.flag("attention_bias")
    return Decoder(
        shape,
        max_positions=positions,
        windows=tuple(window if kind == "sliding_attention" else 0 for kind in kinds),
        ropes=ropes,
        eps=config.number("rms_norm_eps", 1e-6),
        activation=config.text("hidden_activation", "gelu_pytorch_tanh"),
        tied=config.flag("tie_word_embeddings", True),
        attention_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        norm_offset=1.0,
        embedding_factor=shape.hidden**0.5,
        attention_softcap=softcaps[0],
        logit_softcap=softcaps[1],
        qkv_bias=bias,
        output_bias=bias,
        head_norms=head_norms,
        post_norms=True,
    )
