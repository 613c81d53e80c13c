"""Fisher-weighted output error: the expected loss increase when a layer's weight w is replaced by ŵ.

    Δ = ½ Σ_n F_n (w_n - ŵ_n) A (w_n - ŵ_n)ᵀ        A = E[x xᵀ] = hessian / 2,   F_n = E[g_n²]

in nats a token: the second-order loss change with the Kronecker-factored Gauss-Newton matrix G ⊗ A (Martens and
Grosse, K-FAC, arXiv 1503.05671, section 3), of whose factor G only the diagonal F is kept. Unlike traces times the
squared weight error (HAWQ-V2, arXiv 1911.03852), it stays right for quantizers that push errors into directions the
inputs do not excite.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1024
"""Rows worked on at a time."""


def output_error(weight: Tensor, values: Tensor, hessian: Tensor, fisher: Tensor | None = None) -> float:
    """Δ of a linear layer. weight, values: [N, K]; hessian: [K, K] token average of 2 x xᵀ; fisher: [N], all ones
    where None.
    """
    total = 0.0
    for start in range(0, weight.shape[0], ROWS):
        d = (weight[start : start + ROWS] - values[start : start + ROWS]).to(hessian.dtype)
        rows = ((d @ hessian) * d).sum(1, dtype=torch.float64)
        total += float(rows.sum() if fisher is None else rows @ fisher[start : start + ROWS].double())
    return total / 4


def lookup_error(table: Tensor, values: Tensor, frequency: Tensor, fisher: Tensor | None = None) -> float:
    """Δ of an embedding table [V, K]: ½ Σ_v p_v Σ_k F_k (e_vk - ê_vk)².

    frequency: [V] how often each row is looked up, as a share of all tokens; fisher: [K] of the embedding's outputs.
    """
    total = 0.0
    for start in range(0, table.shape[0], ROWS):
        square = (table[start : start + ROWS] - values[start : start + ROWS]).double().square()
        rows = square.sum(1) if fisher is None else square @ fisher.double()
        total += float(rows @ frequency[start : start + ROWS].double())
    return total / 2
