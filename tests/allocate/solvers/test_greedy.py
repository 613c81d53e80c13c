import numpy as np
import pytest

from anybit.allocate.solvers import greedy, ilp
from anybit.errors import RecipeError


def test_buys_the_best_drop_a_byte_first() -> None:
    costs = np.array([[10.0, 0.0], [6.0, 0.0]])
    sizes = np.array([[1.0, 11.0], [1.0, 4.0]])
    assert greedy.solve(costs, sizes, 6).tolist() == [0, 1]
    assert greedy.solve(costs, sizes, 100).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_keeps_the_budget_and_never_beats_the_exact_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, sizes = rng.random((10, 4)), rng.integers(1, 30, (10, 4)).astype(float)
    budget = float(sizes.min(axis=1).sum() + rng.integers(0, 60))
    quick, exact = greedy.solve(costs, sizes, budget), ilp.solve(costs, sizes, budget)
    rows = np.arange(10)
    assert sizes[rows, quick].sum() <= budget
    assert costs[rows, quick].sum() >= costs[rows, exact].sum() - 1e-12


def test_refuses_two_budgets() -> None:
    with pytest.raises(RecipeError, match="exactly one budget"):
        greedy.solve(np.ones((1, 2)), np.ones((2, 1, 2)), np.array([3.0, 3.0]))  # type: ignore[arg-type]
