"""The loop against a slow reference that keeps the explicit inverse, the error identity, and enumeration."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.quantize.obs import Propagated, factorize, propagate, sweep, weighted_error


def problem(rows: int, columns: int, seed: int, tokens: int = 200) -> tuple[Tensor, Tensor]:
    """Random weight [rows, columns] and the Hessian of correlated inputs, both float64."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, columns)) @ (rng.standard_normal((columns, columns)) / np.sqrt(columns))
    x = x * np.exp(rng.normal(0, 0.7, columns))
    return torch.from_numpy(rng.standard_normal((rows, columns))), torch.from_numpy(2 * x.T @ x / tokens)


def test_what_is_rounded_is_given_back_too() -> None:
    weight, hessian = problem(5, 24, 3)
    seen: dict[int, Tensor] = {}

    def rounded(column: int, w: Tensor) -> Tensor:
        seen[column] = w.clone()
        return torch.round(w / 0.4) * 0.4

    done = propagate(weight, factorize(hessian), rounded, block=7)
    assert torch.equal(done.unrounded, torch.stack([seen[k] for k in range(24)], 1))
    assert torch.equal(torch.round(done.unrounded / 0.4) * 0.4, done.values)
    first = int(factorize(hessian).order[0])
    assert torch.equal(done.unrounded[:, first], weight[:, first])


def grid(scale: float, low: int, high: int):
    return lambda column, w: torch.round(w / scale).clamp(low, high) * scale


def reference(
    weight: np.ndarray, hessian: np.ndarray, order: list[int], scale: float, low: int, high: int
) -> np.ndarray:
    """Optimal Brain Quantization in a fixed order: explicit inverse, one column eliminated a step."""
    w, inverse = weight.copy(), np.linalg.inv(hessian)
    out = np.empty_like(w)
    for i in order:
        out[:, i] = np.clip(np.rint(w[:, i] / scale), low, high) * scale
        error = (w[:, i] - out[:, i]) / inverse[i, i]
        w -= np.outer(error, inverse[i])
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, :] = inverse[:, i] = 0.0
        inverse[i, i] = 1.0
    return out


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("seed", range(3))
def test_same_values_as_explicit_inverse(act_order: bool, block: int, seed: int) -> None:
    weight, hessian = problem(24, 64, seed)
    factor = factorize(hessian, act_order=act_order)
    damped = hessian.numpy() + 0.01 * hessian.diagonal().mean().item() * np.eye(64)
    diagonal = hessian.diagonal().numpy()
    order = np.argsort(-diagonal, kind="stable").tolist() if act_order else list(range(64))
    assert factor.order.tolist() == order
    expected = reference(weight.numpy(), damped, order, 0.3, -4, 3)
    got = propagate(weight, factor, grid(0.3, -4, 3), block=block).values
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("columns", [50, 601])  # in one piece, and by halves
def test_factor_is_the_upper_root_of_the_inverse(columns: int) -> None:
    _, hessian = problem(1, columns, 3)
    factor = factorize(hessian, act_order=True, damping=0.02)
    damped = hessian + 0.02 * hessian.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverse = torch.linalg.inv(damped[factor.order][:, factor.order])
    assert torch.equal(factor.upper, factor.upper.triu())
    torch.testing.assert_close(factor.upper.T @ factor.upper, inverse, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("block", [5, 128])
def test_loss_is_the_weighted_error(block: int) -> None:
    weight, hessian = problem(16, 64, 4)
    result = propagate(weight, factorize(hessian), grid(0.4, -2, 1), block=block)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(64, dtype=torch.float64)
    direct = torch.einsum("ni,ij,nj->n", weight - result.values, damped, weight - result.values)
    torch.testing.assert_close(result.loss, direct, rtol=1e-10, atol=0)
    torch.testing.assert_close(weighted_error(weight, result.values, damped), direct, rtol=1e-10, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_two_by_four_against_enumeration(seed: int) -> None:
    """The last two columns are solved exactly given the others' rounding, so the result lies between the best and
    plain rounding.
    """
    weight, hessian = problem(2, 4, seed)
    levels = [-1.0, -0.5, 0.0, 0.5]
    factor = factorize(hessian, act_order=False, damping=0.0)
    got = propagate(weight, factor, grid(0.5, -2, 1)).values
    every = torch.tensor(list(itertools.product(levels, repeat=4)), dtype=torch.float64)
    for row in range(2):
        errors = torch.einsum("ci,ij,cj->c", weight[row] - every, hessian, weight[row] - every)
        mine = float(weighted_error(weight[row : row + 1], got[row : row + 1], hessian))
        assert mine >= float(errors.min()) - 1e-12
        # Given the first three columns the loop's last choice is optimal: no other last value does better.
        same = (every[:, :3] == got[row, :3]).all(dim=1)
        assert mine <= float(errors[same].min()) + 1e-12


def test_one_column_left_is_least_squares_rounding() -> None:
    """With K = 2 the second column is rounded at exactly w2 + (H21/H22)(w1 - q1), the minimiser for the chosen
    first one.
    """
    hessian = torch.tensor([[2.0, 1.2], [1.2, 1.5]], dtype=torch.float64)
    weight = torch.tensor([[0.7, 0.2]], dtype=torch.float64)
    seen: dict[int, float] = {}

    def record(column: int, w: Tensor) -> Tensor:
        seen[column] = float(w)
        return torch.round(w)

    propagate(weight, factorize(hessian, act_order=False, damping=0.0), record)
    assert seen[0] == 0.7
    assert seen[1] == pytest.approx(0.2 + 1.2 / 1.5 * (0.7 - 1.0), rel=1e-12)


def test_permuting_columns_permutes_the_result() -> None:
    weight, hessian = problem(8, 40, 6)
    shuffle = torch.from_numpy(np.random.default_rng(0).permutation(40))
    plain = propagate(weight, factorize(hessian), grid(0.3, -4, 3)).values
    moved = propagate(weight[:, shuffle], factorize(hessian[shuffle][:, shuffle]), grid(0.3, -4, 3)).values
    assert torch.equal(moved, plain[:, shuffle])


def test_no_worse_than_rounding_on_average() -> None:
    ratios = []
    for seed in range(10):
        weight, hessian = problem(32, 64, seed)
        rounding = grid(0.5, -4, 3)
        got = propagate(weight, factorize(hessian), rounding).values
        ratios.append(
            weighted_error(weight, got, hessian).sum() / weighted_error(weight, rounding(0, weight), hessian).sum()
        )
    assert max(ratios) < 1


@pytest.mark.parametrize(("group", "block"), [(16, 128), (16, 24), (24, 128), (100, 128), (48, 32), (0, 32)])
def test_dynamic_groups_see_fully_compensated_weights(group: int, block: int) -> None:
    weight, hessian = problem(4, 72, 7)
    factor = factorize(hessian, act_order=False)
    seen: dict[int, Tensor] = {}
    propagate(
        weight,
        factor,
        grid(0.5, -2, 1),
        block=block,
        group=group,
        start_group=lambda column, now: seen.__setitem__(column, now.clone()),
    )
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(72, dtype=torch.float64)
    size = group or 72
    assert sorted(seen) == list(range(0, 72, size))
    rounded = propagate(weight, factor, grid(0.5, -2, 1), block=block).values
    for start, now in seen.items():
        assert now.shape == (4, min(size, 72 - start))
        # What is left to choose minimises the error given the columns already rounded: a linear system.
        done, left = slice(0, start), slice(start, 72)
        best = (
            weight[:, left]
            + torch.linalg.solve(damped[left, left], damped[left, done] @ (weight - rounded)[:, done].T).T
        )
        torch.testing.assert_close(now, best[:, : now.shape[1]], rtol=1e-8, atol=1e-10)


def test_dead_columns_neither_give_nor_take() -> None:
    weight, hessian = problem(5, 20, 8)
    hessian = hessian.clone()
    hessian[3, :] = hessian[:, 3] = 0
    factor = factorize(hessian)
    assert factor.dead.nonzero().flatten().tolist() == [3]
    other = weight.clone()
    other[:, 3] += 17.0
    a, b = (propagate(w, factor, grid(0.3, -4, 3)).values for w in (weight, other))
    keep = [i for i in range(20) if i != 3]
    assert torch.equal(a[:, keep], b[:, keep])


def test_damping_escalates_and_is_recorded() -> None:
    hessian = torch.tensor([[1.0, 1.05], [1.05, 1.0]], dtype=torch.float64)  # eigenvalues 2.05 and -0.05
    factor = factorize(hessian, damping=0.01)
    assert (factor.escalations, factor.damping) == (1, pytest.approx(0.1))
    with pytest.raises(RecipeError, match=r"blk\.0: .*not positive definite even with a damping of 1 "):
        factorize(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), damping=0.001, name="blk.0")


def test_refuses_broken_hessians() -> None:
    with pytest.raises(RecipeError, match="NaN"):
        factorize(torch.tensor([[float("nan")]]))
    with pytest.raises(RecipeError, match="negative diagonal"):
        factorize(torch.tensor([[-1.0]]))
    with pytest.raises(RecipeError, match="square"):
        factorize(torch.ones(2, 3))
    with pytest.raises(RecipeError, match="damping"):
        factorize(torch.eye(2), damping=-0.1)
    with pytest.raises(RecipeError, match="3 columns"):
        propagate(torch.ones(1, 3), factorize(torch.eye(2)), grid(1, -1, 1))


def test_inputs_are_unchanged() -> None:
    weight, hessian = problem(3, 10, 9)
    w, h = weight.clone(), hessian.clone()
    propagate(weight, factorize(hessian), grid(0.3, -4, 3))
    assert torch.equal(weight, w) and torch.equal(hessian, h)


@pytest.mark.parametrize("block", [1, 7, 128])
def test_a_sweep_ends_where_no_single_code_can_be_better(block: int) -> None:
    """Every row's loss falls or stays, pass by pass; in the end each code is the best of all levels, the others fixed."""
    weight, hessian = problem(6, 60, 4)
    factor = factorize(hessian)
    damped = hessian + factor.added * torch.eye(60, dtype=torch.float64)
    near = torch.round(weight / 0.5).clamp(-2, 1) * 0.5
    done = Propagated(near, weight, weighted_error(weight, near, damped))
    before, first = done.loss, done.values
    for _ in range(30):
        done = sweep(weight, done, hessian, factor, grid(0.5, -2, 1), block=block)
        assert bool((done.loss <= before + 1e-12).all())
        before = done.loss
    assert not torch.equal(done.values, first)
    assert torch.equal(torch.round(done.unrounded / 0.5).clamp(-2, 1) * 0.5, done.values)
    torch.testing.assert_close(done.loss, weighted_error(weight, done.values, damped))
    for column, level in itertools.product(range(60), (-1.0, -0.5, 0.0, 0.5)):
        other = done.values.clone()
        other[:, column] = level
        assert bool((weighted_error(weight, other, damped) >= done.loss - 1e-12).all())


def test_several_passes_are_passes_one_by_one_in_any_block() -> None:
    weight, hessian = problem(6, 50, 5)
    factor = factorize(hessian, act_order=False)
    near = torch.round(weight / 0.4).clamp(-2, 1) * 0.4
    start = Propagated(near, weight, torch.zeros(6))
    once = start
    for _ in range(3):
        once = sweep(weight, once, hessian, factor, grid(0.4, -2, 1), block=11)
    thrice = sweep(weight, start, hessian, factor, grid(0.4, -2, 1), times=3, block=50)
    assert torch.equal(once.values, thrice.values) and not torch.equal(thrice.values, near)
