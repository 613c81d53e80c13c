"""`QEmbedding`: nn.Embedding with a quantized table."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from anybit import ops
from anybit.formats import TensorFormat
from anybit.nn.holder import Holder, empty
from anybit.tensors import QTensor, ScaleRule, quantize


class QEmbedding(Holder):
    """Rows of a quantized table [num_embeddings, embedding_dim]; dtype: that of the rows returned."""

    def __init__(self, weight: QTensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(weight)
        self.num_embeddings, self.embedding_dim = weight.shape
        self.dtype = dtype

    @classmethod
    def empty(
        cls,
        num_embeddings: int,
        embedding_dim: int,
        fmt: TensorFormat,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Self:
        """A table of zeros to load a state dict into."""
        return cls(empty((num_embeddings, embedding_dim), fmt, device), dtype)

    @classmethod
    def from_float(cls, layer: nn.Embedding, fmt: TensorFormat, scale_rule: ScaleRule = "absmax") -> Self:
        """The table rounded to nearest."""
        return cls(quantize(layer.weight.detach(), fmt, scale_rule), layer.weight.dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [...] integers below num_embeddings -> [..., embedding_dim]."""
        rows: Tensor = ops.embedding(ids, self.kernel_weight())
        return rows.to(self.dtype)
