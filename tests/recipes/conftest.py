"""A tiny Llama of random weights with a byte tokenizer, and a text to calibrate it with."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "bos_token_id": 256,
}


def weights(tied: bool, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * 1.5 / shape[-1] ** 0.5).bfloat16()

    made = {"model.embed_tokens.weight": normal(260, 32), "model.norm.weight": torch.ones(32).bfloat16()}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{prefix}.{name}.weight"] = 1 + 0.1 * normal(32)
        for name, rows in (("q", 32), ("k", 16), ("v", 16), ("o", 32)):
            made[f"{prefix}.self_attn.{name}_proj.weight"] = normal(rows, 32)
        made[f"{prefix}.mlp.gate_proj.weight"] = normal(80, 32)
        made[f"{prefix}.mlp.up_proj.weight"] = normal(80, 32)
        made[f"{prefix}.mlp.down_proj.weight"] = normal(32, 80)
    if not tied:
        made["lm_head.weight"] = normal(260, 32)
    return made


def write_model(
    folder: Path, tied: bool = False, seed: int = 0, tensors: dict[str, torch.Tensor] | None = None
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": tied}))
    save_file(tensors or weights(tied, seed), folder / "model.safetensors")
    vocabulary = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, "<s>": 256}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Separate embedding and output matrix."""
    return write_model(tmp_path / "model")


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """The embedding is the output matrix."""
    return write_model(tmp_path / "tied", tied=True)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    letters = random.Random(0).choices("etaoinshrdlu     ,.", k=3000)
    path.write_text("".join(letters))
    return path
