"""Fisher information of a model's loss: how much it minds a change, from gradients collected once on the
full-precision model.

With targets drawn from the model's own distribution the expected outer product of the gradients is the Gauss-Newton
matrix of the loss (Martens, New insights and perspectives on the natural gradient method, arXiv 1412.1193, section
9), so a change d of a parameter costs about ½ F d² nats a token. It needs one backward pass a batch and is never
negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anybit.errors import RecipeError


class OutputFisher:
    """Token average of g², g the gradient of the summed loss with respect to a layer's outputs [tokens, N]."""

    def __init__(self, width: int, *, name: str = "layer") -> None:
        """`width`: N, the number of outputs."""
        self.name = name
        self.tokens = 0
        self._mean = torch.zeros(width, dtype=torch.float64)

    def add(self, gradient: Tensor) -> None:
        """Take in gradients [..., N] of the loss summed (not averaged) over tokens; RecipeError for a wrong width
        or NaN.
        """
        if gradient.shape[-1] != self._mean.shape[0]:
            raise RecipeError(
                f"{self.name}: gradients have {gradient.shape[-1]} columns, the layer {self._mean.shape[0]} outputs"
            )
        rows = gradient.detach().reshape(-1, self._mean.shape[0])
        if rows.shape[0] == 0:
            return
        square = rows.double().square().mean(0)
        if not bool(torch.isfinite(square).all()):
            raise RecipeError(f"{self.name}: the gradients hold NaN or infinite values; check the model and the text")
        total = self.tokens + rows.shape[0]
        self._mean += (square - self._mean) * (rows.shape[0] / total)
        self.tokens = total

    @property
    def second_moment(self) -> Tensor:
        """[N] float64 mean of g_n²."""
        return self._mean


def diagonal(inputs: Tensor, gradient: Tensor) -> Tensor:
    """[N, K] diagonal Fisher of a weight from its inputs [tokens, K] and output gradients [tokens, N]: mean of g_n²
    x_k².
    """
    if inputs.shape[0] != gradient.shape[0] or inputs.shape[0] == 0:
        raise RecipeError(
            f"inputs and gradients must be of the same tokens, got {inputs.shape[0]} and {gradient.shape[0]}"
        )
    return gradient.square().T @ inputs.square() / inputs.shape[0]


def diagonal_cost(weight: Tensor, values: Tensor, fisher: Tensor) -> float:
    """½ Σ F (w - ŵ)²: expected loss increase in nats a token from a diagonal Fisher of the weight's shape."""
    return 0.5 * float((fisher * (weight - values).square()).sum(dtype=torch.float64))
