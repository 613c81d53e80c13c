"""The allocation problem every solver takes: one choice an item, least total cost, linear budgets, groups that
choose alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anybit.errors import RecipeError

Floats = NDArray[np.float64]
Choices = NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """costs: [items, choices], +inf where a choice is not allowed.  sizes: [budgets, items, choices].  limits:
    [budgets].

    Items are groups already merged into one where they must choose alike; `members[i]` lists the original items of
    item i.
    """

    costs: Floats
    sizes: Floats
    limits: Floats
    members: tuple[tuple[int, ...], ...]

    def expand(self, choices: Choices) -> Choices:
        """Choice of every original item from the choice of every merged item."""
        count = sum(len(m) for m in self.members)
        spread = np.empty(count, dtype=np.int64)
        for choice, members in zip(choices, self.members, strict=True):
            spread[list(members)] = choice
        return spread

    def feasible(self, choices: Choices) -> bool:
        """Whether these choices (of merged items) keep every budget, compared exactly."""
        return bool(np.all(self.spent(choices) <= self.limits))

    def spent(self, choices: Choices) -> Floats:
        """[budgets] what these choices (of merged items) use of each budget."""
        return np.asarray(self.sizes[:, np.arange(len(choices)), choices].sum(axis=1), dtype=np.float64)

    def total(self, choices: Choices) -> float:
        """Total cost of these choices (of merged items)."""
        return float(self.costs[np.arange(len(choices)), choices].sum())


def make(
    costs: ArrayLike,
    sizes: ArrayLike,
    budget: ArrayLike,
    groups: Sequence[Sequence[int]] = (),
    *,
    unit: str = "bytes",
) -> Problem:
    """Check the tables and merge the groups.

    costs: [items, choices].  sizes: [items, choices] of one budget or [budgets, items, choices].  budget: a number
    or one a budget.  groups: items (by index) that must take the same choice.
    Raises RecipeError for NaN, wrong shapes, an item without an allowed choice, or a budget below the smallest
    possible.
    """
    cost = np.array(costs, dtype=np.float64)
    size = np.array(sizes, dtype=np.float64)
    limits = np.atleast_1d(np.array(budget, dtype=np.float64))
    if size.ndim == 2:
        size = size[None]
    if cost.ndim != 2 or cost.size == 0 or size.shape[1:] != cost.shape or limits.shape != size.shape[:1]:
        raise RecipeError(
            f"allocation needs costs [items, choices], sizes of the same shape for each budget and one limit a budget; "
            f"got {cost.shape}, {size.shape} and {limits.shape}"
        )
    if np.isnan(cost).any() or np.isneginf(cost).any() or not np.isfinite(size).all() or np.isnan(limits).any():
        raise RecipeError("allocation costs, sizes and budgets must not be NaN, and sizes must be finite")
    members = _merge(cost.shape[0], groups)
    cost = np.stack([cost[list(m)].sum(axis=0) for m in members])
    size = np.stack([size[:, list(m)].sum(axis=1) for m in members], axis=1)
    closed = np.isinf(cost).all(axis=1)
    if closed.any():
        raise RecipeError(f"item {members[int(np.argmax(closed))][0]} has no allowed choice")
    problem = Problem(cost, size, limits, members)
    allowed = np.where(np.isinf(cost), np.inf, size)
    least = allowed.min(axis=2).sum(axis=1)
    most = np.where(np.isinf(cost), -np.inf, size).max(axis=2).sum(axis=1)
    for low, high, limit in zip(least, most, limits, strict=True):
        if limit < low:
            raise RecipeError(
                f"the budget of {limit:g} {unit} is below the smallest possible, {low:g}; "
                f"the choices span {low:g} to {high:g}"
            )
    return problem


def _merge(items: int, groups: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    owner = list(range(items))
    for group in groups:
        for item in group:
            if not 0 <= item < items:
                raise RecipeError(f"a group names item {item}; there are {items}")
        wanted = {owner[item] for item in group}
        if wanted:
            least = min(wanted)
            owner = [least if o in wanted else o for o in owner]
    return tuple(tuple(i for i in range(items) if owner[i] == o) for o in sorted(set(owner)))
