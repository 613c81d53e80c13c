"""transformers `generate` in bf16 as a peer; see ../README.md for the protocol. Runs in the project's own environment."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import transformers
from protocol import serve
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList
from transformers.models.llama import LlamaConfig


class Clock(LogitsProcessor):
    """Writes down when the logits of every step are ready."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter())
        return scores


def build(config: dict[str, Any]) -> Any:
    """The model with random weights."""
    torch.manual_seed(0)
    fields = {
        key: value
        for key, value in config.items()
        if key not in ("architectures", "model_type", "torch_dtype", "dtype")
    }
    return AutoModelForCausalLM.from_config(LlamaConfig(**fields), dtype=torch.bfloat16).eval()


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    model = build(job["config"])
    stored = sum(p.numel() * p.element_size() for p in model.parameters())
    prompt = torch.tensor([[(7919 * i + 13) % job["config"]["vocab_size"] for i in range(job["prefill"])]])
    about = {
        "engine": "transformers",
        "version": f"transformers {transformers.__version__}",
        "format": "bf16",
        "bytes": stored,
    }

    def round_of(_: str) -> dict[str, float]:
        clock = Clock()
        steps = job["decode"] + 1  # the first comes out of the prefill
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=steps,
                min_new_tokens=steps,
                do_sample=False,
                pad_token_id=0,
                logits_processor=LogitsProcessorList([clock]),
            )
        return {
            "prefill_tokens": job["prefill"],
            "prefill_seconds": clock.times[0] - started,
            "decode_tokens": job["decode"],
            "decode_seconds": clock.times[-1] - clock.times[0],
        }

    serve(about, round_of)


if __name__ == "__main__":
    main()
