"""The keyword transformer KWT-1 (Berg et al., arXiv 2104.00769): a vision transformer over 98 frames of 40 features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LABELS = ("_silence_", "_unknown_", "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
WIDTH, LAYERS, TOKENS, FEATURES = 64, 12, 99, 40


class Layer(nn.Module):
    """Attention of one head and an MLP, each followed by a norm over the sum with its input (post-norm)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.o = nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[n, tokens, width] -> the same shape."""
        scores = self.q(x) @ self.k(x).transpose(1, 2) / WIDTH**0.5
        x = self.norm1(x + self.o(scores.softmax(-1) @ self.v(x)))
        y: Tensor = self.norm2(x + self.fc2(F.gelu(self.fc1(x), approximate="tanh")))
        return y


class KWT1(nn.Module):
    """607 k parameters; input: the features of a second of sound."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.class_emb = nn.Parameter(torch.zeros(WIDTH))
        self.pos_emb = nn.Parameter(torch.zeros(TOKENS, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        """[n, 98, 40] -> logits [n, 12] in the order of `LABELS`."""
        x = torch.cat([self.class_emb.expand(len(x), 1, WIDTH), self.embed(x)], 1) + self.pos_emb
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.head(x[:, 0])
        return y
