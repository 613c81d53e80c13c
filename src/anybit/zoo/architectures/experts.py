"""A mixture-of-experts language model (Shazeer et al., arXiv 1701.06538; top-2 as in Mixtral, arXiv 2401.04088), made from a dense one.

The FFN of every layer of `anybit-tiny` is cut into eight experts (sparse upcycling by splitting, LLaMA-MoE, arXiv 2406.16554), of which a
router picks two a token.  Everything else has the dense model's sizes and names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from anybit.zoo.train_lm import MLP, Config, Layer, Llama

EXPERTS, ACTIVE = 8, 2


class Experts(nn.Module):
    """The weighted sum of the two experts a token's router logits are largest for; weights are their softmax."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        narrow = replace(config, intermediate_size=config.intermediate_size // EXPERTS)
        self.router = nn.Linear(config.hidden_size, EXPERTS, bias=False)
        self.experts = nn.ModuleList(MLP(narrow) for _ in range(EXPERTS))
        self.balance = torch.zeros(())
        self.counts = torch.zeros(EXPERTS, dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same shape.

        Leaves behind `counts` (tokens an expert got) and, for training, `balance` (the Switch loss, 1 where all get the same).
        """
        flat = x.flatten(0, -2)
        logits = self.router(flat)
        top, chosen = logits.topk(ACTIVE, -1)
        weight = top.float().softmax(-1).to(flat.dtype)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.nonzero(chosen == number, as_tuple=True)
            if len(token):
                out = out.index_add(0, token, (expert(flat[token]) * weight[token, place, None]).to(out.dtype))
        self.counts = torch.bincount(chosen.flatten(), minlength=EXPERTS)
        share = self.counts.to(flat.dtype) / chosen.numel()
        self.balance = EXPERTS * (share * logits.float().softmax(-1).mean(0)).sum()
        return out.reshape(x.shape)


class ExpertsLM(Llama):
    """The story model with experts in the place of its MLPs."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or Config())
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.mlp = Experts(self.c)  # type: ignore[assignment]
        self.head = nn.Linear(self.c.hidden_size, self.c.vocab_size, bias=False)
        self.head.weight = self.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, time] int64 -> float32 logits [batch, time, vocabulary]."""
        x = self.embed_tokens(ids)
        cos, sin = (self.get_buffer(name)[: ids.shape[1]] for name in ("cos", "sin"))
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def balance(self) -> Tensor:
        """The balance of the last forward pass, averaged over layers."""
        parts = [module.balance for module in self.modules() if isinstance(module, Experts)]
        return torch.stack(parts).mean()


def split(dense: Mapping[str, Tensor], config: Config, perturbation: float, seed: int) -> dict[str, Tensor]:
    """The weights of an `ExpertsLM` from those of the dense model.

    Hidden units are dealt to experts in an order drawn from the seed; what an expert gives is scaled by EXPERTS / ACTIVE, as so many
    fewer add up; expert weights get noise of `perturbation` times their deviation; routers are small and random.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, value in dense.items():
        if ".mlp." not in name:
            state[name] = value.clone()
    for layer in range(config.num_hidden_layers):
        base = f"layers.{layer}.mlp."
        parts = torch.randperm(config.intermediate_size, generator=generator).chunk(EXPERTS)
        for number, units in enumerate(parts):
            for kind in ("gate", "up", "down"):
                value = dense[f"{base}{kind}_proj.weight"]
                part = value[:, units] * (EXPERTS / ACTIVE) if kind == "down" else value[units]
                noise = torch.randn(part.shape, generator=generator) * part.std() * perturbation
                state[f"{base}experts.{number}.{kind}_proj.weight"] = part + noise
        state[f"{base}router.weight"] = 0.02 * torch.randn(EXPERTS, config.hidden_size, generator=generator)
    state["head.weight"] = state["embed_tokens.weight"]
    return state
