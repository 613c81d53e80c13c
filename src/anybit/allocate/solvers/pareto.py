"""Allocation along a sensitivity order: a more sensitive item never gets a smaller choice.

Source: HAWQ-V2 (arXiv 1911.03852), section 3.2: instead of choices^items only the non-decreasing sequences along the order are
enumerated, C(items + choices - 1, choices - 1) of them, and the Pareto front of cost against size is read off. The exact solver
(`ilp.solve`) has no such restriction, so its cost is never higher; this one shows what the paper's own search finds.
"""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import ArrayLike

from anybit.allocate.solvers.problem import Choices, Floats
from anybit.errors import RecipeError

LIMIT = 2_000_000
"""The most sequences enumerated."""


def sequences(costs: ArrayLike, sizes: ArrayLike, sensitivity: ArrayLike) -> tuple[Floats, Floats, Choices]:
    """(size [n], cost [n], choices [n, items]) of every allocation that is non-decreasing along rising sensitivity.

    costs, sizes: [items, choices], the choices ordered from the smallest to the largest.  sensitivity: [items]; ties keep their order.
    Raises RecipeError for shapes that do not fit, NaN, sizes that fall along a row, and problems of more than `LIMIT` sequences.
    """
    cost, size = np.array(costs, dtype=np.float64), np.array(sizes, dtype=np.float64)
    rank = np.array(sensitivity, dtype=np.float64)
    if cost.ndim != 2 or cost.size == 0 or size.shape != cost.shape or rank.shape != cost.shape[:1]:
        raise RecipeError(
            "the monotone search needs costs and sizes [items, choices] and sensitivities [items]; "
            f"got {cost.shape}, {size.shape} and {rank.shape}"
        )
    if np.isnan(cost).any() or np.isnan(size).any() or np.isnan(rank).any():
        raise RecipeError("costs, sizes and sensitivities must not be NaN")
    if (np.diff(size, axis=1) < 0).any():
        raise RecipeError("the choices of the monotone search must be ordered from the smallest to the largest")
    items, choices = cost.shape
    count = math.comb(items + choices - 1, choices - 1)
    if count > LIMIT:
        raise RecipeError(
            f"{items} items with {choices} choices have {count} non-decreasing allocations, more than {LIMIT}; "
            "use fewer choices or the exact solver"
        )
    order = np.argsort(rank, kind="stable")
    # A sequence is given by the places where it steps up: item i of the order takes the number of steps at or before i.
    steps = np.array(list(combinations_with_replacement(range(items + 1), choices - 1)), dtype=np.int64)
    steps = steps.reshape(count, choices - 1)
    along = (steps[:, :, None] <= np.arange(items)).sum(axis=1)
    picked = np.empty_like(along)
    picked[:, order] = along
    each = np.arange(items)
    return size[each, picked].sum(axis=1), cost[each, picked].sum(axis=1), picked


def solve(costs: ArrayLike, sizes: ArrayLike, budget: float, sensitivity: ArrayLike, *, unit: str = "bytes") -> Choices:
    """The non-decreasing allocation of least cost within the budget, the smaller one among equals.

    Raises RecipeError where even the smallest exceeds it.
    """
    size, cost, picked = sequences(costs, sizes, sensitivity)
    allowed = np.flatnonzero(size <= budget)
    if not allowed.size:
        raise RecipeError(
            f"the budget of {budget:g} {unit} is below the smallest possible, {size.min():g}; "
            f"the choices span {size.min():g} to {size.max():g}"
        )
    best = allowed[np.lexsort((size[allowed], cost[allowed]))[0]]
    return np.asarray(picked[best], dtype=np.int64)
