"""The choice among kernels: cheapest accepting one, ties to the earlier, refusals listed."""

import pytest

from anybit.ops import costs as known
from anybit.ops.dispatch import Kernel, Problem, calibrated, choose, costs, machine

PROBLEM = Problem(1, 8, 8, "int4/g8", 40, None, True, True, 8, False)


def kernel(name, cost, refused=None):
    return Kernel(name, lambda p: refused, lambda p: cost, lambda: name)


def test_the_cheapest_accepting_kernel_wins_and_says_why():
    choice = choose([kernel("a", 3.0), kernel("b", 1.0), kernel("c", 0.1, "too odd"), kernel("d", 1.0)], PROBLEM)
    assert choice.kernel.name == "b"
    assert choice.candidates[2] == ("c", "too odd", None)
    assert choice.why == "predicted 1.0 times as fast as d, the next"
    assert "too odd" in choose([kernel("a", 1.0), kernel("c", 0.1, "too odd")], PROBLEM).why


def test_all_refusals_are_named():
    with pytest.raises(ValueError, match="a: no rows; b: no columns"):
        choose([kernel("a", 1, "no rows"), kernel("b", 1, "no columns")], PROBLEM)


def test_costs_are_those_of_the_active_kernels():
    isa, threads = machine()
    assert costs() is known.of(isa, threads)[0] and calibrated() is known.of(isa, threads)[1]
    assert (costs().isa, costs().threads) == (isa, threads)
    assert threads >= 1
