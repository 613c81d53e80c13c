"""Greedy allocation: start from the cheapest choice in size, repeatedly buy the best drop in cost a byte.

A quick bound and a comparison for the exact solver; on the convex hull of each item's choices it is optimal but for
the last step (the classic result for the multiple-choice knapsack; Sinha and Zoltners, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from anybit.allocate.solvers.problem import Choices, Problem, make
from anybit.errors import RecipeError


def solve(
    costs: ArrayLike,
    sizes: ArrayLike,
    budget: float,
    groups: Sequence[Sequence[int]] = (),
    *,
    unit: str = "bytes",
) -> Choices:
    """Choice of each item [items] within one budget; not always the best. Arguments and errors as in `ilp.solve`."""
    problem = make(costs, sizes, budget, groups, unit=unit)
    found = fill(problem)
    if found is None:
        raise RecipeError("the greedy solver takes exactly one budget; use the exact one for more")
    return problem.expand(found)


def fill(problem: Problem) -> Choices | None:
    """Greedy choices of merged items, or None where there is more than one budget."""
    if len(problem.limits) != 1:
        return None
    cost, size, limit = problem.costs, problem.sizes[0], float(problem.limits[0])
    items = np.arange(cost.shape[0])
    # Smallest size first, least cost among equals.
    smallest = np.where(np.isfinite(cost), size, np.inf).min(axis=1, keepdims=True)
    picked: Choices = np.where(size == smallest, cost, np.inf).argmin(axis=1).astype(np.int64)
    spent = float(size[items, picked].sum())
    while True:
        more = size - size[items, picked][:, None]
        gain = cost[items, picked][:, None] - cost
        open_ = (gain > 0) & (spent + more <= limit)
        if not open_.any():
            return picked
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(open_, np.where(more > 0, gain / more, np.inf), -np.inf)
        item, choice = np.unravel_index(int(rate.argmax()), rate.shape)
        picked[item] = choice
        spent = float(size[items, picked].sum())
