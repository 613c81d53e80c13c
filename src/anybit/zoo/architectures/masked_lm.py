"""A masked-diffusion language model (LLaDA, Nie et al., arXiv 2502.09992; Sahoo et al., arXiv 2406.07524): a Llama that sees both ways.

It has the sizes and parameter names of `anybit-tiny`, from which it is trained on, and one more token, the mask, whose row in the
embedding is learned and which is never predicted.  Text is made by putting masks where it will stand and replacing the surest ones
step by step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.errors import AnybitError
from anybit.zoo.train_lm import Attention, Config, Layer, Llama, rotate

FLOOR = 1e-3
"""The least probability of a mask: p = (1 - FLOOR) t + FLOOR."""


class BothWays(Attention):
    """The attention of the story model without its causal mask."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[batch, time, width] -> the same shape."""
        c = self.c
        q = rotate(self.q_proj(x).unflatten(-1, (c.num_attention_heads, -1)).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).unflatten(-1, (c.num_key_value_heads, -1)).transpose(1, 2), cos, sin)
        v = self.v_proj(x).unflatten(-1, (c.num_key_value_heads, -1)).transpose(1, 2)
        repeat = c.num_attention_heads // c.num_key_value_heads
        y = F.scaled_dot_product_attention(q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1))
        out: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return out


class MaskedLM(Llama):
    """ids with masks -> logits of every token that is no mask; the mask's id is the size of the vocabulary."""

    def __init__(self, config: Config | None = None) -> None:
        c = config or Config()
        super().__init__(replace(c, vocab_size=c.vocab_size + 1))
        self.mask = c.vocab_size
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.self_attn = BothWays(self.c)
        self.head = nn.Linear(c.hidden_size, self.c.vocab_size, bias=False)
        self.head.weight = self.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, time] int64 -> float32 logits [batch, time, vocabulary]."""
        x = self.embed_tokens(ids)
        cos, sin = (self.get_buffer(name)[: ids.shape[1]] for name in ("cos", "sin"))
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits: Tensor = self.head(self.norm(x))
        return logits[..., : self.mask]


def corrupt(ids: Tensor, share: Tensor, draws: Tensor, mask: int) -> tuple[Tensor, Tensor]:
    """Masked ids and the probability of a mask [batch, 1].

    ids [batch, time]; share: t in 0..1 [batch]; draws: uniform numbers [batch, time], below which probability a token is masked.
    """
    p = (1 - FLOOR) * share[:, None] + FLOOR
    return torch.where(draws < p, mask, ids), p


def bound(model: nn.Module, ids: Tensor, share: Tensor, draws: Tensor, mask: int) -> Tensor:
    """The negative evidence lower bound in nats a token, by one draw of (t, masks) a sequence: mean of cross entropy / p where masked."""
    noisy, p = corrupt(ids, share, draws, mask)
    loss = F.cross_entropy(model(noisy).float().transpose(1, 2), ids, reduction="none")
    return (loss * (noisy == mask) / p).mean()


@torch.no_grad()
def generate(
    model: MaskedLM, prompt: Tensor, length: int, steps: int, block: int = 32, temperature: float = 0.0, seed: int = 0
) -> Tensor:
    """The prompt [time] and `length` tokens behind it, made block by block in `steps` steps in all.

    In every step the masks of the block are predicted at once, and those whose token is surest are replaced (LLaDA, low-confidence
    remasking).  Raises AnybitError where prompt and text are longer than the model's positions, or steps are fewer than blocks.
    """
    total = len(prompt) + length
    if total > model.c.max_position_embeddings:
        raise AnybitError(
            f"prompt and text have {total} tokens, and the model {model.c.max_position_embeddings} positions"
        )
    blocks = -(-length // block)
    if steps < blocks:
        raise AnybitError(f"{blocks} blocks need at least as many steps; got {steps}")
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat([prompt, torch.full((length,), model.mask)])
    for number in range(blocks):
        start = len(prompt) + number * block
        stop = min(start + block, total)
        rounds = steps // blocks + (number < steps % blocks)
        for left in range(rounds, 0, -1):
            hidden = torch.nonzero(ids[start:stop] == model.mask).flatten() + start
            if not len(hidden):
                break
            p = model(ids[None])[0, hidden].softmax(-1)
            if temperature > 0:
                token = torch.multinomial(p.pow(1 / temperature), 1, generator=generator).flatten()
            else:
                token = p.argmax(-1)
            sure = p.gather(-1, token[:, None]).flatten()
            best = sure.topk(-(-len(hidden) // left)).indices
            ids[hidden[best]] = token[best]
    return ids
