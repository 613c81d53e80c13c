"""The monotone search against enumeration of everything, and against the exact solver it restricts."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.allocate.solvers import ilp, pareto
from anybit.errors import RecipeError


def problem(seed, items, choices):
    rng = np.random.default_rng(seed)
    sensitivity = rng.permutation(items).astype(float)
    numbers = rng.integers(1, 9, items)
    sizes = numbers[:, None] * np.arange(2, 2 + choices)
    costs = (sensitivity + 1)[:, None] * rng.random(items)[:, None] * 4.0 ** -np.arange(choices)
    return costs, sizes, sensitivity


def everything(costs, sizes, sensitivity):
    items, choices = costs.shape
    order = np.argsort(sensitivity)
    for picked in itertools.product(range(choices), repeat=items):
        if all(picked[a] <= picked[b] for a, b in itertools.pairwise(order)):
            yield picked, sum(sizes[i][c] for i, c in enumerate(picked)), sum(costs[i][c] for i, c in enumerate(picked))


@pytest.mark.parametrize(("items", "choices"), [(1, 1), (1, 4), (5, 1), (4, 3), (5, 4)])
def test_sequences_are_all_monotone_ones(items, choices):
    tables = problem(3, items, choices)
    size, cost, picked = pareto.sequences(*tables)
    expected = sorted(everything(*tables))
    assert len(expected) == math.comb(items + choices - 1, choices - 1)
    found = sorted(zip(map(tuple, picked.tolist()), size, cost, strict=True))
    assert [f[0] for f in found] == [e[0] for e in expected]
    np.testing.assert_allclose([f[1:] for f in found], [e[1:] for e in expected], rtol=1e-12)


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_best_within_the_budget_and_never_better_than_exact(seed, share):
    costs, sizes, sensitivity = problem(seed, 5, 3)
    low, high = sizes[:, 0].sum(), sizes[:, -1].sum()
    budget = float(low + share * (high - low))
    picked = pareto.solve(costs, sizes, budget, sensitivity)
    each = np.arange(5)
    best = min(cost for _, size, cost in everything(costs, sizes, sensitivity) if size <= budget)
    assert sizes[each, picked].sum() <= budget
    assert costs[each, picked].sum() == pytest.approx(best, rel=1e-12)
    exact = ilp.solve(costs, sizes, budget)
    # The exact solver is exact up to the objective's spread divided by its scale and HiGHS's absolute gap: 1e-10 of the spread.
    assert costs[each, exact].sum() <= best + 1e-9 * costs.max()


def test_refusals():
    costs, sizes, sensitivity = problem(0, 4, 3)
    with pytest.raises(RecipeError, match=r"below the smallest possible"):
        pareto.solve(costs, sizes, float(sizes[:, 0].sum()) - 1, sensitivity)
    with pytest.raises(RecipeError, match="smallest to the largest"):
        pareto.solve(costs, sizes[:, ::-1], 1e9, sensitivity)
    with pytest.raises(RecipeError, match="NaN"):
        pareto.solve(costs, sizes, 1e9, sensitivity * np.nan)
    with pytest.raises(RecipeError, match=r"\(4, 3\), \(4, 3\) and \(3,\)"):
        pareto.solve(costs, sizes, 1e9, sensitivity[:3])
    with pytest.raises(RecipeError, match="use fewer choices"):
        pareto.sequences(np.ones((200, 6)), np.ones((200, 6)), np.ones(200))
