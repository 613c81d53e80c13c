"""Phi-3 and Phi-4-mini (arXiv 2404.14219): q, k, v in one matrix, gate and up in one matrix, longrope, partial rotation."""

from __future__ import annotations

from anybit.models.config import Config
from anybit.models.families.decoder import Decoder, sizes
from anybit.models.rope import rope, rope_parameters


def phi3(config: Config, context: int | None) -> Decoder:
    """The fused matrices are read by row ranges, so a plan names q, k, v, gate and up apart."""
    shape = sizes(config)
    positions = config.integer("max_position_embeddings", 4096)
    parameters = rope_parameters(config)
    if parameters["rope_type"] in ("su", "yarn"):  # earlier names of longrope in Phi-3 configs
        parameters["rope_type"] = "longrope"
    original = config.integer("original_max_position_embeddings", 4096)
    parameters["original_max_position_embeddings"] = original
    table = rope(parameters, shape.head_dim, positions, context)
    window = int(config.optional_number("sliding_window"))
    return Decoder(
        shape,
        max_positions=positions,
        windows=(window,) * shape.layers,
        ropes=(table,) * shape.layers,
        eps=config.number("rms_norm_eps", 1e-5),
        activation=config.text("hidden_act", "silu"),
        tied=config.flag("tie_word_embeddings"),
        attention_scale=shape.head_dim**-0.5,
        fused=True,
    )
