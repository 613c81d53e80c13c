"""The model families anybit lowers to a plan: one entry a `model_type` of a Hugging Face config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anybit.errors import UnsupportedModelError
from anybit.models.config import Config
from anybit.models.families.decoder import Decoder
from anybit.models.families.gemma import gemma2, gemma3
from anybit.models.families.llama import llama
from anybit.models.families.mistral import mistral
from anybit.models.families.phi3 import phi3
from anybit.models.families.qwen import qwen2, qwen3
from anybit.models.plan import Plan

FAMILIES: dict[str, Callable[[Config, int | None], Decoder]] = {
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "phi3": phi3,
    "gemma2": gemma2,
    "gemma3_text": gemma3,
}
"""`model_type` -> config and context length to `Decoder`."""


def lower(config: Mapping[str, Any], context: int | None = None) -> Plan:
    """The plan of a model's configuration (the object in its config.json).

    context: the longest sequence to be run, where the model's RoPE table depends on it; by default the model's own short one.
    Raises UnsupportedModelError naming the architecture and the supported ones, or the option that is not supported.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        named = f"the architecture {kind!r}" if kind else "a config.json without model_type"
        raise UnsupportedModelError(f"{named} is not supported; supported are {', '.join(sorted(FAMILIES))}")
    if context is not None and context < 1:
        raise UnsupportedModelError(f"the context length must be at least 1; got {context}")
    return FAMILIES[kind](Config(config), context).lower()
