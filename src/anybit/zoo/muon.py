"""Muon for the matrices inside a network and AdamW for everything else, as one optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from anybit.zoo.train_lm import newton_schulz


class MuonAdamW(torch.optim.Optimizer):
    """Matrices move by their orthogonalised momentum (Jordan et al., 2024) at AdamW's root mean square (arXiv 2502.16982), others by AdamW.

    pace: what the rate of AdamW is a multiple of Muon's by.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], lr: float, decay: float, pace: float
    ) -> None:
        groups = [
            {"params": list(matrices), "muon": True, "weight_decay": decay},
            {"params": list(others), "muon": False, "weight_decay": 0.0, "pace": pace},
        ]
        super().__init__(groups, {"lr": lr, "momentum": 0.95, "betas": (0.9, 0.98)})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if group["muon"]:
                    momentum = state.setdefault("momentum", torch.zeros_like(p))
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                    update = newton_schulz(p.grad.lerp(momentum, group["momentum"]), torch.float32)
                    p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))
                    continue
                first, second = (state.setdefault(name, torch.zeros_like(p)) for name in ("first", "second"))
                count = state["count"] = state.get("count", 0) + 1
                a, b = group["betas"]
                first.lerp_(p.grad, 1 - a)
                second.lerp_(p.grad.square(), 1 - b)
                deviation = (second / (1 - b**count)).sqrt_().add_(1e-8)
                p.addcdiv_(first, deviation, value=-group["lr"] / (1 - a**count))
