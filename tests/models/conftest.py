"""Tiny random transformers models of every family, with every option switched on: the oracle of lowering and execution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

BASE: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 76,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.2, 1.4],
    "long_factor": [1.5, 3.0, 6.0],
    "partial_rotary_factor": 0.75,
}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_biases_tied": (
        "Llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 10},
    ),
    "llama_llama3": ("Llama", {"rope_parameters": LLAMA3, "hidden_act": "gelu"}),
    "llama_linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 900.0, "factor": 2.5}}),
    "llama_yarn": ("Llama", {"rope_parameters": YARN}),
    "llama_yarn_mscale": (
        "Llama",
        {"rope_parameters": {**YARN, "mscale": 1.3, "mscale_all_dim": 0.7, "truncate": False}},
    ),
    "mistral": ("Mistral", {"sliding_window": 5, "head_dim": 14}),
    "mistral_no_window": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": (
        "Qwen3",
        {"head_dim": 10, "attention_bias": True, "use_sliding_window": True, "sliding_window": 4, "layer_types": KINDS},
    ),
    "qwen3_tied": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "phi3": ("Phi3", {"sliding_window": 6, "original_max_position_embeddings": 96}),
    "phi3_short": ("Phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 64}),
    "gemma2": ("Gemma2", {"head_dim": 12, "sliding_window": 5, "attention_bias": True, "query_pre_attn_scalar": 20}),
    "gemma3": (
        "Gemma3Text",
        {
            "head_dim": 12,
            "sliding_window": 5,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 17,
            "layer_types": KINDS,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
}
"""test name -> config class and what differs from BASE."""


def build(kind: str, extra: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    """A float32 model with weights large enough that every option changes the logits."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**(BASE | extra), attn_implementation="eager")
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if value.ndim == 1 else 2.0 / value.shape[-1] ** 0.5
            center = 1.0 if "norm" in name and "gemma" not in config.model_type else 0.0
            value.copy_(center + spread * torch.randn(value.shape))
    return model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[torch.nn.Module, Path]]:
    """name -> (transformers model, directory it is saved in), each built once."""
    made: dict[str, tuple[torch.nn.Module, Path]] = {}

    def get(name: str) -> tuple[torch.nn.Module, Path]:
        if name not in made:
            model = build(*MODELS[name])
            path = tmp_path_factory.mktemp(name)
            model.save_pretrained(path)
            made[name] = model, path
        return made[name]

    return get


@pytest.fixture
def network():
    """Makes a small network of convolutions, one of them depthwise, always with the same weights."""

    def make():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16, padding=1), nn.ReLU(),
            nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10),
        ).eval()  # fmt: skip

    return make
