import ctypes
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.allocate.solvers import greedy
from anybit.allocate.solvers.ilp import solve
from anybit.errors import RecipeError


def brute_force(costs: np.ndarray, sizes: np.ndarray, limits: np.ndarray, groups: list[list[int]]) -> float:
    """Least total cost over every allocation; inf where none fits. sizes [budgets, items, choices]."""
    items, choices = costs.shape
    rows = np.arange(items)
    best = np.inf
    for picked in itertools.product(range(choices), repeat=items):
        if any(len({picked[i] for i in group}) > 1 for group in groups):
            continue
        if (sizes[:, rows, picked].sum(axis=1) <= limits).all():
            best = min(best, costs[rows, picked].sum())
    return float(best)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.integers(1, 2), st.booleans(), st.booleans())
def test_equals_brute_force(seed: int, items: int, choices: int, budgets: int, whole: bool, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.random((items, choices)) * 10.0 ** rng.integers(-9, 6)
    sizes = (
        rng.integers(1, 1000, (budgets, items, choices)) * 1000.0 if whole else rng.random((budgets, items, choices))
    )
    low, high = sizes.min(axis=2).sum(axis=1), sizes.max(axis=2).sum(axis=1)
    # A hair above the smallest possible: which order the floats are summed in must not decide what fits.
    limits = low * (1 + 1e-9) + rng.random(budgets) * (high - low)
    groups = [[0, items - 1]] if grouped else []
    best = brute_force(costs, sizes, limits, groups)
    if np.isinf(best):
        with pytest.raises(RecipeError):
            solve(costs, sizes, limits, groups)
        return
    picked = solve(costs, sizes, limits, groups)
    rows = np.arange(items)
    assert (sizes[:, rows, picked].sum(axis=1) <= limits * (1 + 1e-12)).all()
    assert all(len(set(picked[g])) == 1 for g in groups)
    assert costs[rows, picked].sum() <= best * (1 + 1e-9)


def test_eight_items_four_choices() -> None:
    rng = np.random.default_rng(1)
    costs, sizes = rng.random((8, 4)), rng.integers(1, 50, (1, 8, 4)).astype(float)
    limits = np.array([160.0])
    picked = solve(costs, sizes, limits)
    assert costs[np.arange(8), picked].sum() == pytest.approx(brute_force(costs, sizes, limits, []), rel=1e-12)


def test_a_budget_met_to_the_byte_is_used() -> None:
    costs = np.tile([3.0, 1.0, 0.0], (5, 1))
    sizes = np.tile([1_000_001.0, 2_000_003.0, 3_000_017.0], (5, 1))
    exact = 2 * 1_000_001 + 3 * 2_000_003
    assert costs[np.arange(5), solve(costs, sizes, exact)].sum() == 9.0
    assert costs[np.arange(5), solve(costs, sizes, exact - 1)].sum() == 11.0


def test_a_realistic_model_is_solved_and_beats_greedy() -> None:
    rng = np.random.default_rng(2)
    bits = np.array([2, 3, 4, 5, 6, 8])
    parameters = rng.choice([2048 * 2048, 256 * 2048, 2048 * 5632], 155)
    sizes = np.ceil(parameters[:, None] * (bits + 0.125) / 8)
    costs = np.exp(rng.normal(0, 2, 155))[:, None] * 4.0**-bits * np.exp(rng.normal(0, 0.1, (155, 6)))
    budget = parameters.sum() * 3.5 / 8
    picked, quick = solve(costs, sizes, budget), greedy.solve(costs, sizes, budget)
    rows = np.arange(155)
    assert sizes[rows, picked].sum() <= budget
    assert costs[rows, picked].sum() <= costs[rows, quick].sum() <= 1.1 * costs[rows, picked].sum()


def test_forbidden_choices_and_ties() -> None:
    costs = np.array([[np.inf, 1.0], [0.0, 0.0]])
    assert solve(costs, np.array([[1, 2], [3, 3]]), 5)[0] == 1
    with pytest.raises(RecipeError, match="item 1 has no allowed choice"):
        solve(np.array([[0.0, 1.0], [np.inf, np.inf]]), np.ones((2, 2)), 5)


def test_refusals_name_both_limits() -> None:
    costs, sizes = np.ones((2, 2)), np.array([[10.0, 20.0], [30.0, 50.0]])
    with pytest.raises(RecipeError, match=r"39 bytes is below the smallest possible, 40; .* 40 to 70"):
        solve(costs, sizes, 39)
    with pytest.raises(RecipeError, match="NaN"):
        solve(np.array([[np.nan, 1.0]]), np.ones((1, 2)), 5)
    with pytest.raises(RecipeError, match="one limit a budget"):
        solve(costs, np.ones((2, 3)), 5)
    with pytest.raises(RecipeError, match="item 7"):
        solve(costs, sizes, 60, [[0, 7]])


def test_the_solver_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(15)  # a problem that HiGHS 1.12 prints about, on stdout
    costs = np.abs(rng.normal(size=(30, 5))).cumsum(1)[:, ::-1] ** 2
    sizes = rng.integers(100, 4000, size=(30, 1)) * np.arange(2, 7)
    solve(costs, sizes, int(sizes[:, 2].sum() * 0.9))
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""


def test_two_threads_leave_stdout_where_it_was_and_a_closed_one_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    costs, sizes = np.random.default_rng(0).random((20, 4)).cumsum(1)[:, ::-1], np.tile(np.arange(1, 5) * 100, (20, 1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda budget: solve(costs, sizes, budget), [4000 + 10 * i for i in range(20)]))
    os.write(1, b"still here")
    assert capfd.readouterr().out == "still here"
    code = "import os, numpy as np; os.close(1); from anybit.allocate import solve; solve(np.ones((2, 2)), np.ones((2, 2)), 4)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
