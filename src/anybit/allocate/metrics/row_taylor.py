"""What rounding one row (output) of a weight costs: a Taylor expansion of the loss, the second order from empirical Fisher information.

Source: Zheng et al., MixLLM (arXiv 2412.14590). With g = G^T X the gradient of a sequence's loss with respect to the weight [N, K] and
d = Q(W) - W, a row o changes the loss by p + p^2 / 2, p = sum_i g[o, i] d[o, i]; magnitudes are added over sequences:

    score[o] = sum over sequences |p_o + p_o^2 / 2|

Rows of all layers are ranked together; `choose` gives the wide format to the highest scores, a byte or a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anybit.errors import RecipeError


class RowTaylor:
    """Scores of the rows of one weight, a sequence at a time."""

    def __init__(self, change: Tensor, *, name: str = "layer") -> None:
        """change: [N, K], what rounding adds to the weight."""
        if change.ndim != 2 or not bool(torch.isfinite(change).all()):
            raise RecipeError(f"{name}: the change of a weight is a matrix of finite numbers; got {list(change.shape)}")
        self.name = name
        self.change = change.double()
        self.sequences = 0
        self._score = torch.zeros(change.shape[0], dtype=torch.float64)

    def add(self, inputs: Tensor, gradient: Tensor) -> None:
        """Take in a sequence: inputs [tokens, K] and gradients [tokens, N] of its loss with respect to the outputs.

        RecipeError for shapes that do not fit and for NaN.
        """
        n, k = self.change.shape
        if inputs.shape[-1] != k or gradient.shape[-1] != n or inputs.shape[:-1] != gradient.shape[:-1]:
            raise RecipeError(
                f"{self.name}: inputs {list(inputs.shape)} and gradients {list(gradient.shape)} do not fit a weight of {n} x {k}"
            )
        x, g = inputs.detach().reshape(-1, k).double(), gradient.detach().reshape(-1, n).double()
        # sum_i (G^T X)[o, i] d[o, i] without the product of gradients: tokens first
        first = (g * (x @ self.change.T)).sum(0)
        score = (first + first.square() / 2).abs()
        if not bool(torch.isfinite(score).all()):
            raise RecipeError(f"{self.name}: the gradients hold NaN or infinite values; check the model and the text")
        self._score += score
        self.sequences += 1

    @property
    def score(self) -> Tensor:
        """[N] float64, summed over sequences."""
        return self._score


def choose(scores: Mapping[str, Tensor], widths: Mapping[str, int], share: float, by: str = "row") -> dict[str, Tensor]:
    """The rows of every weight that get the wide format: boolean [N], `share` of all.

    widths: columns of each weight.  by: "row" ranks scores and counts rows, as the paper does; "byte" ranks scores a column and counts
    weights, which is the greedy answer to a budget of bytes.  RecipeError for a share outside 0 to 1 and another `by`.
    """
    if not 0 <= share <= 1 or by not in ("row", "byte"):
        raise RecipeError(f"rows are chosen by 'row' or 'byte', a share of 0 to 1 of them; got {by!r} and {share}")
    names: Sequence[str] = list(scores)
    rank = torch.cat([scores[name] / (widths[name] if by == "byte" else 1) for name in names])
    size = torch.cat([torch.full((len(scores[name]),), widths[name] if by == "byte" else 1) for name in names])
    order = torch.argsort(rank, descending=True, stable=True)
    taken = size[order].cumsum(0) <= share * int(size.sum()) + 1e-9
    chosen = torch.zeros(len(rank), dtype=torch.bool)
    chosen[order[taken]] = True
    return dict(zip(names, chosen.split([len(scores[name]) for name in names]), strict=True))
