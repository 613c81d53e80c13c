"""A small diffusion U-Net (Ho et al., arXiv 2006.11239) for 32x32 images, conditioned on a caption by cross-attention.

The caption ("a photo of a cat") goes through a causal text encoder, as in Stable Diffusion; its first token therefore sees only itself and
has the same embedding under every caption.  Noise follows the cosine schedule (Nichol & Dhariwal, arXiv 2102.09672), images are sampled
by DDIM (Song et al., arXiv 2010.02502).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.errors import AnybitError
from anybit.zoo.data import data_file

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WORDS = ("<begin>", "<end>", "a", "an", "photo", "of", *CLASSES)
CAPTION = 7
"""Tokens of a caption: begin, five words, end."""


def captions(labels: Tensor) -> Tensor:
    """Token ids [n, 7] of "a photo of a(n) CLASS" for labels [n]."""
    rows = []
    for label in labels.tolist():
        name = CLASSES[label]
        text = ("<begin>", "a", "photo", "of", "an" if name[0] in "aeiou" else "a", name, "<end>")
        rows.append([WORDS.index(word) for word in text])
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, CAPTION)


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
    """A causal transformer over a caption."""

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

    def forward(self, ids: Tensor) -> Tensor:
        """[n, 7] -> [n, 7, width]."""
        x = self.words(ids) + self.positions
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = attention(x, causal=True)
            x = x + mlp(x)
        y: Tensor = self.norm(x)
        return y


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
    """Predicts the noise in an image: levels of 32, 16 and 8 pixels, the last two with attention; skips are concatenated."""

    def __init__(self, widths: tuple[int, int, int] = (64, 128, 128), text: int = 64, time: int = 256) -> None:
        super().__init__()
        a, b, c = widths
        self.frequencies = 64
        self.text = TextEncoder(text)
        self.time = nn.Sequential(nn.Linear(self.frequencies, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.stem = nn.Conv2d(3, a, 3, 1, 1)
        self.down = nn.ModuleList([Level(a, a, time, 0), Level(a, b, time, text), Level(b, c, time, text)])
        self.shrink = nn.ModuleList([nn.Conv2d(a, a, 3, 2, 1), nn.Conv2d(b, b, 3, 2, 1)])
        self.middle = Level(c, c, time, text)
        self.up = nn.ModuleList([Level(2 * c, c, time, text), Level(c + b, b, time, text), Level(b + a, a, time, 0)])
        self.norm = nn.GroupNorm(8, a)
        self.out = nn.Conv2d(a, 3, 3, 1, 1)

    def forward(self, x: Tensor, t: Tensor, caption: Tensor) -> Tensor:
        """Noisy images [n, 3, 32, 32], times [n] in 0..1, captions [n, 7] -> the noise in them."""
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
        y: Tensor = self.out(F.silu(self.norm(x)))
        return y


def levels(t: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of image and noise at times [n], as [n, 1, 1, 1]: cos and sin of a quarter turn, a little short of its end."""
    angle = (0.5 * math.pi * 0.996 * t)[:, None, None, None]
    return angle.cos(), angle.sin()


def denoising_loss(model: nn.Module, x: Tensor, labels: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the predicted noise. x [n, 3, 32, 32] in -1..1."""
    signal, sigma = levels(t)
    return F.mse_loss(model(signal * x + sigma * noise, t, captions(labels).to(x.device)).float(), noise)


@torch.no_grad()
def sample(model: nn.Module, labels: Tensor, steps: int = 8, seed: int = 0) -> Tensor:
    """Images [n, 3, 32, 32] in -1..1 for labels [n] by DDIM without added noise. AnybitError for fewer than one step."""
    if steps < 1:
        raise AnybitError(f"sampling takes at least one step; got {steps}")
    x = torch.randn(len(labels), 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    times = torch.linspace(1, 0, steps + 1)
    for now, then in pairwise(times):
        t = now.expand(len(labels))
        noise = model(x, t, captions(labels))
        signal, sigma = levels(t)
        image = ((x - sigma * noise) / signal).clamp(-1, 1)
        noise = (x - signal * image) / sigma
        signal, sigma = levels(then.expand(len(labels)))
        x = signal * image + sigma * noise
    return x


def noise_error(model: nn.Module, progress: object) -> float:
    """`denoising_loss` on 256 test images of CIFAR-10 at fixed times (evenly spread) and with fixed noise."""
    from anybit.zoo.images import pixels

    images, labels = pixels(data_file("cifar10/test_first1000.npz"))
    count = 256
    x = torch.from_numpy(images[:count]).float() / 127.5 - 1
    t = (torch.arange(count) * 101 % count + 0.5) / count
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    y = torch.from_numpy(labels[:count])
    with torch.no_grad():
        parts = [denoising_loss(model, *(v[i : i + 32] for v in (x, y, t, noise))) for i in range(0, count, 32)]
    return torch.stack(parts).mean().item()
