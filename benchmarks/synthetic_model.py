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
from pathlib import Path

import torch
from safetensors.torch import save_file

from anybit.cli.bench import shapes


def write(out: Path, size: str, seed: int = 0, shard_bytes: int = 500_000_000) -> int:
    """Write the model; the number of parameters. A shard holds at most `shard_bytes` unless one tensor is larger."""
    out.mkdir(parents=True, exist_ok=True)
    config = shapes.config(size)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in shapes.weights(config).items():
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
    parser.add_argument("--size", choices=shapes.SHAPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-mb", type=int, default=500, help="largest shard in megabytes")
    arguments = parser.parse_args()
    total = write(arguments.out, arguments.size, arguments.seed, arguments.shard_mb * 1_000_000)
    print(f"{arguments.out}: {total:,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
