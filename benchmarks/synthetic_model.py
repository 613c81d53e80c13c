"""A Llama checkpoint of random weights, for measuring speed and memory: sharded bf16 safetensors and config.json.

    python benchmarks/synthetic_model.py --size 1.1b --out DIR

A tokenizer is copied from anybit-tiny where that model is bundled. The weights are normal with the standard deviation that
real models start from, so scales and codes are spread as in a real model; the text it writes is noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 256,
        "tie_word_embeddings": True,
    },
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
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
"""Shapes of widely used models of that size."""  # fmt: skip

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def tensor_shapes(config: dict[str, object]) -> Shapes:
    """(name, shape) of every tensor of a Llama model, in the order of its layers."""
    number = {key: value for key, value in config.items() if isinstance(value, int)}
    hidden, inner, vocabulary = number["hidden_size"], number["intermediate_size"], number["vocab_size"]
    head = hidden // number["num_attention_heads"]
    keys = head * number["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(number["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (hidden,)
        for name, rows in (("q", hidden), ("k", keys), ("v", keys), ("o", hidden)):
            yield f"{prefix}.self_attn.{name}_proj.weight", (rows, hidden)
        yield f"{prefix}.post_attention_layernorm.weight", (hidden,)
        for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            yield f"{prefix}.mlp.{name}_proj.weight", shape
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocabulary, hidden)


def config_of(size: str, vocabulary: int | None = None) -> dict[str, object]:
    """The config.json of a size."""
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        **SIZES[size],
    }
    if vocabulary is not None:
        config["vocab_size"] = vocabulary
    return config


def write(out: Path, size: str, seed: int = 0, shard_bytes: int = 500_000_000) -> int:
    """Write the model; the number of parameters. A shard holds at most `shard_bytes` unless one tensor is larger."""
    out.mkdir(parents=True, exist_ok=True)
    config = config_of(size)
    tensors = list(tensor_shapes(config))
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensors:
        nbytes = 2 * torch.Size(shape).numel()
        if shards[-1] and filled + nbytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += nbytes
    generator = torch.Generator().manual_seed(seed)
    index: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        values = {name: _random(shape, generator) for name, shape in shard}
        save_file(values, out / file, metadata={"format": "pt"})
        index |= dict.fromkeys(values, file)
        total += sum(value.numel() for value in values.values())
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    layout = {"metadata": {"total_size": 2 * total}, "weight_map": index}
    (out / "model.safetensors.index.json").write_text(json.dumps(layout, indent=2) + "\n")
    tokenizer = Path(__file__).parents[1] / "src/anybit/zoo/weights/anybit-tiny"
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / file).exists():
            shutil.copy(tokenizer / file, out / file)
    return total


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape).normal_(0, 0.02, generator=generator).bfloat16()


def main() -> int:
    parser = argparse.ArgumentParser(description="write a Llama checkpoint of random weights")
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-mb", type=int, default=500, help="largest shard in megabytes")
    arguments = parser.parse_args()
    total = write(arguments.out, arguments.size, arguments.seed, arguments.shard_mb * 1_000_000)
    print(f"{arguments.out}: {total:,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
