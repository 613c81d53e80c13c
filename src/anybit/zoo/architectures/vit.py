"""A small vision transformer (Dosovitskiy et al., arXiv 2010.11929; pre-norm, GELU) for 32x32 images: 64 patches of 4x4 pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention and MLP behind layer norms; queries, keys and values are layers of their own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] -> the same shape."""
        h = self.norm1(x)
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return y


class VisionTransformer(nn.Module):
    """Learned positions; logits from the mean of the tokens (as in Beyer et al., arXiv 2205.01580)."""

    def __init__(self, width: int = 192, layers: int = 6, heads: int = 3, patch: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.side = 32 // patch
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(self.side**2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def tokens(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] normalised -> embedded patches [n, 64, width], row by row."""
        patches: Tensor = self.embed(x).flatten(2).transpose(1, 2)
        return patches + self.positions

    def states(self, tokens: Tensor) -> list[Tensor]:
        """The tokens [n, k, width] behind every block, the last ones normalised; any k of an image's patches."""
        found = []
        for block in self.blocks:
            tokens = block(tokens)
            found.append(tokens)
        found[-1] = self.norm(tokens)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """[n, 3, 32, 32] normalised -> logits [n, classes]."""
        y: Tensor = self.head(self.states(self.tokens(x))[-1].mean(1))
        return y
