"""Second moments of a layer's inputs, the only thing the Hessian-based quantizers know about the data."""

from __future__ import annotations

import torch
from torch import Tensor

from anybit.errors import RecipeError


class Statistics:
    """Running token average of 2 x xᵀ: the Hessian of the squared output error with respect to each weight row.

    Averaged over tokens, not sequences, so short sequences weigh no more than long ones. `name` appears in errors.

    Source: Frantar et al., GPTQ (arXiv 2210.17323), section 3.
    """

    def __init__(self, columns: int, *, name: str = "layer", dtype: torch.dtype = torch.float32) -> None:
        """`columns`: K, the layer's input width. `dtype`: what the sum is kept in, float32 or float64."""
        if columns < 1:
            raise RecipeError(f"{name}: statistics need at least one input column, got {columns}")
        if dtype not in (torch.float32, torch.float64):
            raise RecipeError(f"{name}: statistics accumulate in float32 or float64, got {dtype} (float16 overflows)")
        self.name = name
        self.tokens = 0
        self._mean = torch.zeros(columns, columns, dtype=dtype)
        self._absolute = torch.zeros(columns, dtype=torch.float64)
        self._largest = torch.zeros(columns)

    @classmethod
    def from_hessian(cls, hessian: Tensor, tokens: int, *, name: str = "layer") -> Statistics:
        """Statistics with the given [K, K] Hessian (copied), as if averaged over `tokens` tokens."""
        if hessian.ndim != 2 or hessian.shape[0] != hessian.shape[1]:
            raise RecipeError(f"{name}: a Hessian is a square matrix, got shape {tuple(hessian.shape)}")
        dtype = torch.float64 if hessian.dtype == torch.float64 else torch.float32
        made = cls(hessian.shape[0], name=name, dtype=dtype)
        made._mean.copy_(hessian)
        made.tokens = tokens
        return made

    @property
    def columns(self) -> int:
        """K, the layer's input width."""
        return self._mean.shape[0]

    def add(self, x: Tensor) -> None:
        """Take in inputs [..., K] of any float dtype; every leading index is a token.

        Raises RecipeError where the width is wrong or a value is NaN or infinite.
        """
        if x.shape[-1] != self.columns:
            raise RecipeError(
                f"{self.name}: calibration inputs have {x.shape[-1]} columns, the layer takes {self.columns}"
            )
        rows = x.detach().reshape(-1, self.columns).to(self._mean.dtype)
        if rows.shape[0] == 0:
            return
        if not bool(torch.isfinite(rows).all()):
            raise RecipeError(
                f"{self.name}: the calibration inputs hold NaN or infinite values; check the model and the text"
            )
        total = self.tokens + rows.shape[0]
        self._mean.addmm_(rows.T, rows, beta=self.tokens / total, alpha=2.0 / total)
        self.tokens = total
        magnitude = rows.abs()
        self._absolute += magnitude.sum(0, dtype=torch.float64)
        self._largest = torch.maximum(self._largest, magnitude.amax(0).float())

    @property
    def hessian(self) -> Tensor:
        """[K, K] float32 (float64 where accumulated in it): token average of 2 x xᵀ. A view: do not write to it."""
        return self._mean

    @property
    def second_moment(self) -> Tensor:
        """[K] mean of x_k² over the tokens: half the Hessian's diagonal."""
        return self._mean.diagonal() / 2

    @property
    def mean_absolute(self) -> Tensor:
        """[K] float32 mean of |x_k| over the tokens added."""
        return (self._absolute / max(1, self.tokens)).float()

    @property
    def largest(self) -> Tensor:
        """[K] float32 largest |x_k| over the tokens added."""
        return self._largest
