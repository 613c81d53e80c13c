import numpy as np
import pytest
import torch

from anybit.allocate.metrics.fisher import OutputFisher, diagonal, diagonal_cost
from anybit.errors import RecipeError


def test_output_fisher_is_the_mean_square_over_tokens() -> None:
    g = torch.randn(50, 6, dtype=torch.float64)
    fisher = OutputFisher(6)
    for part in g.split([1, 19, 30]):
        fisher.add(part)
    fisher.add(torch.empty(0, 6))
    torch.testing.assert_close(fisher.second_moment, (g * g).mean(0), rtol=1e-12, atol=0)
    assert fisher.tokens == 50


def test_diagonal_equals_autograd_token_by_token() -> None:
    """One backward pass a token through a linear layer and a nonlinear loss gives the squared gradients directly."""
    torch.manual_seed(0)
    x = torch.randn(20, 5, dtype=torch.float64)
    w = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    squares, gradients = torch.zeros(4, 5, dtype=torch.float64), []
    for row in x:
        y = row @ w.T
        y.retain_grad()
        (grad,) = torch.autograd.grad(torch.logsumexp(y, 0), w, retain_graph=True)
        gradients.append(torch.autograd.grad(torch.logsumexp(y, 0), y)[0])
        squares += grad.square()
    torch.testing.assert_close(diagonal(x, torch.stack(gradients)), squares / 20, rtol=1e-12, atol=1e-15)


def test_fisher_of_sampled_targets_predicts_the_loss_of_a_softmax() -> None:
    """KL of softmax(z) and softmax(z + d) against ½ dᵀ diag(F) d for changes of one logit, F with exact target
    probabilities.
    """
    z = np.random.default_rng(0).standard_normal(7)
    p = np.exp(z) / np.exp(z).sum()
    for n in range(7):
        fisher = p[n] * (1 - p[n])  # E over targets y ~ p of (p_n - [y = n])²
        moved = z.copy()
        moved[n] += 1e-3
        q = np.exp(moved) / np.exp(moved).sum()
        kl = (p * np.log(p / q)).sum()
        before, after = torch.from_numpy(z[None]), torch.from_numpy(moved[None])
        weight = torch.zeros(1, 7, dtype=torch.float64)
        weight[0, n] = fisher
        assert diagonal_cost(before, after, weight) == pytest.approx(kl, rel=2e-3)


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="3 columns"):
        OutputFisher(4).add(torch.ones(2, 3))
    with pytest.raises(RecipeError, match=r"head.*NaN"):
        OutputFisher(1, name="head").add(torch.tensor([[float("nan")]]))
    with pytest.raises(RecipeError, match="same tokens"):
        diagonal(torch.ones(2, 3), torch.ones(3, 1))
