"""Exact allocation as a one-hot mixed-integer linear program solved by HiGHS.

Source: the formulation of HAWQ-V3 (Yao et al., arXiv 2011.10680, section 3.4) with any number of choices and budgets.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from anybit.allocate.solvers.problem import Choices, Floats, Problem, make
from anybit.errors import RecipeError

_SCALE = 1e4
"""The costs' spread is brought to this, far above HiGHS's fixed absolute gap of 1e-6."""

_STDOUT = threading.Lock()

_CUTS = 50
"""How many allocations just above a budget may be excluded one by one."""


def solve(
    costs: ArrayLike,
    sizes: ArrayLike,
    budget: ArrayLike,
    groups: Sequence[Sequence[int]] = (),
    *,
    unit: str = "bytes",
    time_limit: float = 120.0,
) -> Choices:
    """Choice of each item [items] with the least total cost within the budgets; proven optimal.

    costs: [items, choices], +inf forbids.  sizes: [items, choices], or [budgets, items, choices].  budget: a
    number, or one a budget, in `unit`.  groups: sets of item indices that must choose alike.
    Raises RecipeError where no choice fits (naming the smallest possible), or where `time_limit` seconds prove
    nothing.
    """
    problem = make(costs, sizes, budget, groups, unit=unit)
    return problem.expand(_milp(problem, unit, time_limit))


def _milp(problem: Problem, unit: str, time_limit: float) -> Choices:
    items, choices = problem.costs.shape
    open_ = np.isfinite(problem.costs)
    floor = np.where(open_, problem.costs, np.inf).min(axis=1, keepdims=True)
    relative = np.where(open_, problem.costs - floor, 0.0)
    spread = relative.max(axis=1).max()
    objective = (relative * (_SCALE / spread) if spread > 0 else relative).ravel()
    one_each = sparse.kron(sparse.eye_array(items), np.ones((1, choices)), format="csr")
    rows, limits = _rows(problem)
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(rows, -np.inf, limits)]
    for _ in range(_CUTS):
        with _silenced():
            result = milp(
                objective,
                integrality=np.ones(objective.size),
                bounds=Bounds(0, open_.ravel().astype(np.float64)),
                constraints=constraints,
                options={"mip_rel_gap": 0.0, "time_limit": time_limit},
            )
        if result.status == 2:
            raise RecipeError(f"no allocation keeps every budget of {problem.limits.tolist()} {unit} at once")
        if result.x is None or result.status != 0:
            raise RecipeError(
                f"the allocation was not proven optimal within {time_limit:g} s ({items} items, {choices} choices); "
                "use fewer choices or a rounder budget"
            )
        picked = np.asarray(result.x.reshape(items, choices).argmax(axis=1), dtype=np.int64)
        if problem.feasible(picked):
            return picked
        # Within the solver's tolerance but over the budget: forbid exactly this allocation and ask again.
        cut = np.zeros((items, choices))
        cut[np.arange(items), picked] = 1.0
        constraints.append(LinearConstraint(cut.reshape(1, -1), -np.inf, items - 1))
    raise RecipeError("the budget lies within the solver's tolerance of too many allocations; change it slightly")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Nothing compiled prints meanwhile: HiGHS 1.12 has a line that goes to stdout, where a JSON document may stand."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    with _STDOUT:  # or the second of two threads would keep what the first one put in its place
        try:
            kept = os.dup(1)
        except OSError:  # it is closed
            libc = None
        if libc is None:
            yield
            return
        libc.fflush(None)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        try:
            yield
        finally:
            libc.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
            os.close(nowhere)


def _rows(problem: Problem) -> tuple[Floats, Floats]:
    """Budget rows [budgets, items x choices] and limits, scaled so that HiGHS's absolute tolerances do not decide
    anything.

    Whole numbers are divided by their common divisor and the limit is put half way to the next whole number; other
    rows are scaled to coefficients of at most 1.
    """
    rows, limits = problem.sizes.copy(), problem.limits.copy()
    for row, (size, limit) in enumerate(zip(problem.sizes, problem.limits, strict=True)):
        largest = np.abs(size).max()
        if largest == 0 or not np.isfinite(limit):
            continue
        if np.array_equal(size, np.rint(size)) and largest < 2**53:
            divisor = int(np.gcd.reduce(size.astype(np.int64).ravel()))
            rows[row], limits[row] = size / divisor, np.floor(limit / divisor) + 0.5
        else:
            rows[row], limits[row] = size / largest, limit / largest
    return rows.reshape(len(limits), -1), limits
