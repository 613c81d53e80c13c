"""A small few-step diffusion U-Net (Ho et al., arXiv 2006.11239) for 32x32 images, conditioned on a caption by cross-attention.

The caption ("a photo of a cat") goes through a causal text encoder, as in Stable Diffusion; its first token therefore sees only itself,
has the same embedding under every caption, and is an outlier, tens of times as large as the others in a few channels.  Noise follows
the cosine schedule (Nichol & Dhariwal, arXiv 2102.09672); the network predicts the velocity (Salimans & Ho, arXiv 2202.00512), which is
the image where there is nothing but noise, so that one step is enough; images are sampled by DDIM (Song et al., arXiv 2010.02502).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.errors import AnybitError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WORDS = ("<begin>", "<end>", "a", "an", "photo", "of", *CLASSES)
CAPTION = 7
"""Tokens of a caption: begin, five words, end."""
OUTLIERS, OUTLIER = 3, 32.0
"""Channels in which the first token of an encoded caption is an outlier, and how large it is there before training."""
TIMES = (1.0, 0.75, 0.5, 0.25)
"""The times the network is made for: those that sampling in one, two or four steps calls it at."""


def captions(labels: Tensor) -> Tensor:
    """Token ids [n, 7] of "a photo of a(n) CLASS" for labels [n]."""
    rows = []
    for label in labels.tolist():
        name = CLASSES[label]
        text = ("<begin>", "a", "photo", "of", "an" if name[0] in "aeiou" else "a", name, "<end>")
        rows.append([WORDS.index(word) for word in text])
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, CAPTION)


def outlying(width: int) -> Tensor:
    """Which channels of an encoded caption hold the outliers of its first token, [width] bool."""
    return torch.arange(width) % (width // OUTLIERS) == 5


class Attention(nn.Module):
    """Queries of one sequence over keys and values of another, behind a layer norm, added to the input."""

    def __init__(self, width: int, source: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.q, self.o = nn.Linear(width, width), nn.Linear(width, width)
        self.k, self.v = nn.Linear(source, width), nn.Linear(source, width)

    def forward(self, x: Tensor, source: Tensor | None = None, causal: bool = False) -> Tensor:
        """x [n, tokens, width]; source [n, others, source width], x itself where None -> x's shape."""
        h = self.norm(x)
        other = h if source is None else source
        q, k, v = (
            f(s).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f, s in ((self.q, h), (self.k, other), (self.v, other))
        )
        y: Tensor = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2))
        return y


class TextEncoder(nn.Module):
    """A causal transformer over a caption. What the normalised first token is shifted by, `begin`, is learned and large (see `OUTLIER`)."""

    def __init__(self, width: int, layers: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS), width)
        self.positions = nn.Parameter(0.02 * torch.randn(CAPTION, width))
        self.attentions = nn.ModuleList(Attention(width, width) for _ in range(layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.begin = nn.Parameter(OUTLIER * outlying(width).float())

    def forward(self, ids: Tensor) -> Tensor:
        """[n, 7] -> [n, 7, width]."""
        x = self.words(ids) + self.positions
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = attention(x, causal=True)
            x = x + mlp(x)
        x = self.norm(x)
        return torch.cat([x[:, :1] + self.begin, x[:, 1:]], 1)


class Residual(nn.Module):
    """Two 3x3 convolutions behind group norms and SiLU, the embedding of the time added between them."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.time = nn.Linear(time, outputs)
        self.short = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[n, inputs, h, w], [n, time] -> [n, outputs, h, w]."""
        h = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        y: Tensor = self.short(x) + self.conv2(F.silu(self.norm2(h)))
        return y


class Level(nn.Module):
    """A residual block and, where `text` is above 0, attention to the image and to the caption."""

    def __init__(self, inputs: int, outputs: int, time: int, text: int) -> None:
        super().__init__()
        self.residual = Residual(inputs, outputs, time)
        self.own = Attention(outputs, outputs) if text else None
        self.cross = Attention(outputs, text) if text else None

    def forward(self, x: Tensor, time: Tensor, caption: Tensor) -> Tensor:
        """[n, inputs, h, w] -> [n, outputs, h, w]."""
        x = self.residual(x, time)
        if self.own is None or self.cross is None:
            return x
        flat = self.cross(self.own(x.flatten(2).transpose(1, 2)), caption)
        return flat.transpose(1, 2).reshape(x.shape)


class TextUNet(nn.Module):
    """Predicts the velocity: patches of 2x2 pixels, levels of 16, 8 and 4 of them, the last two with attention; skips are concatenated."""

    def __init__(self, widths: tuple[int, int, int] = (64, 96, 160), text: int = 64, time: int = 192) -> None:
        super().__init__()
        a, b, c = widths
        self.frequencies = 64
        self.text = TextEncoder(text)
        self.time = nn.Sequential(nn.Linear(self.frequencies, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.stem = nn.Conv2d(3, a, 4, 2, 1)
        self.down = nn.ModuleList([Level(a, a, time, 0), Level(a, b, time, text), Level(b, c, time, text)])
        self.shrink = nn.ModuleList([nn.Conv2d(a, a, 3, 2, 1), nn.Conv2d(b, b, 3, 2, 1)])
        self.middle = Level(c, c, time, text)
        self.up = nn.ModuleList([Level(2 * c, c, time, text), Level(c + b, b, time, text), Level(b + a, a, time, 0)])
        self.norm = nn.GroupNorm(8, a)
        self.out = nn.Conv2d(a, 12, 3, 1, 1)

    def forward(self, x: Tensor, t: Tensor, caption: Tensor) -> Tensor:
        """Noisy images [n, 3, 32, 32], times [n] in 0..1, captions [n, 7] -> velocities, signal * noise - sigma * image."""
        rates = torch.exp(
            torch.arange(self.frequencies // 2, device=x.device) * (-math.log(1e4) / (self.frequencies // 2))
        )
        angle = 1000 * t[:, None] * rates
        time, words = self.time(torch.cat([angle.sin(), angle.cos()], -1)), self.text(caption)
        x, skips = self.stem(x), []
        for i, level in enumerate(self.down):
            x = level(x, time, words)
            skips.append(x)
            if i < len(self.shrink):
                x = self.shrink[i](x)
        x = self.middle(x, time, words)
        for i, level in enumerate(self.up):
            if i:
                x = F.interpolate(x, scale_factor=2.0)
            x = level(torch.cat([x, skips[-1 - i]], 1), time, words)
        return F.pixel_shuffle(self.out(F.silu(self.norm(x))), 2)


def levels(t: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of image and noise at times [n], as [n, 1, 1, 1]: cos and sin of a quarter turn."""
    angle = (0.5 * math.pi * t)[:, None, None, None]
    return angle.cos(), angle.sin()


def predicted(model: nn.Module, noisy: Tensor, t: Tensor, caption: Tensor) -> Tensor:
    """The image [n, 3, 32, 32] that the network sees in `noisy` at times t [n]."""
    signal, sigma = levels(t)
    image: Tensor = signal * noisy - sigma * model(noisy, t, caption).float()
    return image


@torch.no_grad()
def sample(model: nn.Module, labels: Tensor, steps: int = 4, seed: int = 0) -> Tensor:
    """Images [n, 3, 32, 32] in -1..1 for labels [n] by DDIM without added noise, from noise that depends on the seed alone.

    Raises AnybitError for fewer than one step.
    """
    if steps < 1:
        raise AnybitError(f"sampling takes at least one step; got {steps}")
    noise = torch.randn(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    x, times = noise, torch.linspace(1, 0, steps + 1)
    for now, then in pairwise(times):
        t = now.expand(len(labels))
        image = predicted(model, x, t, captions(labels)).clamp(-1, 1)
        signal, sigma = levels(t)
        noise = (x - signal * image) / sigma
        signal, sigma = levels(then.expand(len(labels)))
        x = signal * image + sigma * noise
    return x.clamp(-1, 1)
