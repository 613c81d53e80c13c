import numpy as np
import pytest

from anybit.allocate.solvers.problem import make
from anybit.errors import RecipeError


def test_groups_are_merged_transitively_and_expanded() -> None:
    costs = np.arange(8.0).reshape(4, 2)
    problem = make(costs, costs * 10, 1000, [[0, 2], [2, 3]])
    assert problem.members == ((0, 2, 3), (1,))
    assert problem.costs.tolist() == [[0 + 4 + 6, 1 + 5 + 7], [2, 3]]
    assert problem.sizes.tolist() == [[[100, 130], [20, 30]]]
    assert problem.expand(np.array([1, 0])).tolist() == [1, 0, 1, 1]
    assert problem.total(np.array([1, 0])) == 15
    assert problem.spent(np.array([1, 0])).tolist() == [150]
    assert problem.feasible(np.array([1, 0]))


def test_inputs_are_not_modified() -> None:
    costs, sizes = np.ones((2, 2)), np.ones((2, 2))
    make(costs, sizes, 5, [[0, 1]])
    assert (costs == 1).all() and (sizes == 1).all()


def test_infinite_sizes_are_refused() -> None:
    with pytest.raises(RecipeError, match="finite"):
        make(np.ones((1, 2)), np.array([[1.0, np.inf]]), 5)
