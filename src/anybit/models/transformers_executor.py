"""The model as transformers runs it, behind the interface of our executors: the outside reference for our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from anybit.errors import AnybitError


class TransformersExecutor:
    """`AutoModelForCausalLM` of a directory in float32 arithmetic on one sequence, with transformers' own KV cache.

    Weights of a quantized checkpoint stay quantized and meet exact activations. Raises CheckpointError and the like for files
    that cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        import anybit.models  # noqa: F401  (registers the quantizer of our checkpoints)

        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.reset()

    @property
    def position(self) -> int:
        """Tokens read so far."""
        return int(self._cache.get_seq_length())

    def reset(self) -> None:
        """Forget the sequence."""
        from transformers import DynamicCache

        self._cache: Any = DynamicCache(config=self._model.config)

    def truncate(self, n: int) -> None:
        """Forget all but the first `n` tokens; AnybitError where there are fewer."""
        if not 0 <= n <= self.position:
            raise AnybitError(f"cannot truncate to {n} tokens: the sequence has {self.position}")
        if n < self.position:
            self._cache.crop(n - self.position)

    @torch.inference_mode()
    def forward(self, ids: Sequence[int], logits: Literal["last", "all"] = "last") -> Tensor:
        """Append tokens; float32 logits [1, vocab] or [len(ids), vocab]."""
        out = self._model(torch.tensor([list(ids)]), past_key_values=self._cache, use_cache=True).logits[0].float()
        return out if logits == "all" else out[-1:]
