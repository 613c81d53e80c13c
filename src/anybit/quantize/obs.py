"""The Optimal Brain Surgeon loop every Hessian-based quantizer shares: factor the Hessian once, round column by
column, and let the columns still to come make up for the error.

Source: Frantar et al., GPTQ (arXiv 2210.17323), algorithm 1, with one change of arithmetic: its U with Uᵀ U = H⁻¹
is found as the inverse of the upper factor R of H = R Rᵀ (a Cholesky factorization from the last column up), which
costs half as much as inverting H and factoring again, and never forms H⁻¹.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.quantize import check

ESCALATIONS = 3
"""How often the damping grows tenfold before a Hessian is refused."""

RoundColumn = Callable[[int, Tensor], Tensor]
"""(original column index, its compensated weights [N]) -> the representable values [N] to use in their place."""

StartGroup = Callable[[int, Tensor], None]
"""(first column of the group, the group's compensated weights [N, columns]): fit the group's scales now."""


@dataclass(frozen=True)
class Factor:
    """A damped Hessian ready for the loop.

    upper: [K, K] upper triangular U with Uᵀ U = H⁻¹, in visiting order.  order: [K] original column visited at each
    step. dead: [K] bool, columns that calibration never excited.  added: what was added to the diagonal in the end,
    `damping` times its mean, after `escalations` tenfold increases.
    """

    upper: Tensor
    order: Tensor
    dead: Tensor
    damping: float
    added: float
    escalations: int


@dataclass(frozen=True)
class Propagated:
    """values: [N, K] what stands in place of the weight, original column order.  unrounded: [N, K] the compensated weights that they
    were rounded from.  loss: [N] (w - ŵ) H (w - ŵ)ᵀ, H damped.
    """

    values: Tensor
    unrounded: Tensor
    loss: Tensor


def factorize(hessian: Tensor, *, damping: float = 0.01, act_order: bool = True, name: str = "layer") -> Factor:
    """Damp and factor a Hessian [K, K] (float32 or float64, unchanged); columns go by descending diagonal with
    `act_order`.

    The damping, a fraction of the mean diagonal, grows tenfold while the matrix is not positive definite.
    Raises RecipeError where the Hessian is not finite, or still not positive definite after three increases.
    """
    columns = hessian.shape[0]
    if hessian.shape != (columns, columns):
        raise RecipeError(f"{name}: a Hessian is a square matrix, got shape {tuple(hessian.shape)}")
    if not check.finite(hessian):
        raise RecipeError(f"{name}: the Hessian holds NaN or infinite values; the calibration data is broken")
    if not 0 <= damping <= 100:
        raise RecipeError(f"{name}: damping is a fraction of the mean diagonal between 0 and 100, got {damping}")
    diagonal = hessian.diagonal()
    if bool((diagonal < 0).any()):
        raise RecipeError(f"{name}: the Hessian has a negative diagonal; it is no average of 2 x xᵀ")
    dead = diagonal == 0
    order = torch.argsort(diagonal, descending=True, stable=True) if act_order else torch.arange(columns)
    # Reversed here and again after factoring: the Cholesky factor of the reversed matrix is the reversed upper
    # factor of H.
    backwards = order.flip(0)
    damped = hessian.index_select(0, backwards).index_select(1, backwards)
    live = damped.diagonal()
    live[dead[backwards]] = 1.0
    base = live.clone()
    # Over the live columns only: a dead column's stand-in must not decide how much the others are damped.
    mean = float(diagonal[~dead].double().mean()) if not bool(dead.all()) else 1.0
    for escalations in range(ESCALATIONS + 1):
        used = damping * 10.0**escalations
        damped.diagonal().copy_(base + used * mean)
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            inverse = _inverse(lower)
            if check.finite(inverse):
                return Factor(inverse.flip(0, 1), order, dead, used, used * mean, escalations)
    raise RecipeError(
        f"{name}: the Hessian is not positive definite even with a damping of {used:g} of its mean diagonal; "
        "calibrate on more text or start from a larger damping"
    )


def _inverse(lower: Tensor) -> Tensor:
    """The inverse of a lower triangular matrix by halves: -C⁻¹ B A⁻¹ below the diagonal of [[A, 0], [B, C]].

    Two thirds of the operations of solving for the identity, almost all of them in matrix products, and as exact: 2.9e-7 off a float64
    inverse of 5632 columns, as substitution is.
    """
    size = lower.shape[0]
    if size <= 256:
        return torch.linalg.solve_triangular(lower, torch.eye(size, dtype=lower.dtype), upper=False)
    half = size // 2
    inverse = torch.zeros_like(lower)
    inverse[:half, :half] = _inverse(lower[:half, :half])
    inverse[half:, half:] = _inverse(lower[half:, half:])
    inverse[half:, :half] = inverse[half:, half:] @ (lower[half:, :half] @ inverse[:half, :half]).neg_()
    return inverse


def root(factor: Factor) -> Tensor:
    """[K, K] R with R Rᵀ = H, damped: |(w - ŵ) R|² is the loss of a row.  Rows in the original order, those of dead columns zero."""
    size = len(factor.order)
    inverse = torch.linalg.solve_triangular(factor.upper, torch.eye(size, dtype=factor.upper.dtype), upper=True)
    return inverse[torch.argsort(factor.order)].masked_fill(factor.dead[:, None], 0)


def propagate(
    weight: Tensor,
    factor: Factor,
    round_column: RoundColumn,
    *,
    block: int = 128,
    group: int = 0,
    start_group: StartGroup | None = None,
) -> Propagated:
    """Round a weight [N, K] column by column; each error is made up for by the columns still to come. The input is
    unchanged.

    With `start_group`, it is called with the compensated weights of every `group` columns just before the first of
    them is rounded (`group` 0: all columns are one group); this needs the natural column order.
    """
    columns = weight.shape[1]
    if factor.upper.shape[0] != columns:
        raise RecipeError(f"the weight has {columns} columns, the Hessian {factor.upper.shape[0]}")
    upper, order = factor.upper, factor.order.tolist()
    # One weight column is one contiguous row here: everything below reads and writes whole rows.
    current = weight.T[factor.order].to(upper.dtype).contiguous()
    values, unrounded = torch.empty_like(current), torch.empty_like(current)
    loss = torch.zeros(weight.shape[0], dtype=upper.dtype)
    for begin, end in _blocks(columns, block, group if start_group else 0):
        errors = torch.empty_like(current[begin:end])
        inner = upper[begin:end, begin:end]
        for i in range(end - begin):
            column = begin + i
            if start_group is not None and column % (group or columns) == 0:
                last = min(column + (group or columns), columns)
                now = current[column:last]
                if i:
                    now = now - upper[begin:column, column:last].T @ errors[:i]
                start_group(column, now.T)
            now = current[column]
            if i:
                now = torch.addmv(now, errors[:i].T, inner[:i, i], alpha=-1)
            rounded = round_column(order[column], now)
            values[column] = rounded
            unrounded[column] = now
            torch.div(now - rounded, inner[i, i], out=errors[i])
        loss += (errors * errors).sum(0)
        current[end:].addmm_(upper[begin:end, end:].T, errors, alpha=-1)
    back = torch.argsort(factor.order)
    return Propagated(values[back].T, unrounded[back].T, loss)


def sweep(
    weight: Tensor,
    start: Propagated,
    hessian: Tensor,
    factor: Factor,
    round_column: RoundColumn,
    *,
    times: int = 1,
    block: int = 128,
) -> Propagated:
    """Lower the loss of rounded columns by coordinate descent: each in turn goes to the representable value next to its optimum, all
    others as they are, so that no step makes a row worse (QuantEase, arXiv 2309.01885, algorithm 2, whose blocks make it products of
    matrices).

    weight: [N, K], what `start` was rounded from.  hessian: [K, K], the one of `factor`.  times: passes over all columns, which end early
    where none changes.
    """
    damped = hessian.to(factor.upper.dtype, copy=True)
    diagonal = damped.diagonal()
    diagonal += factor.added
    diagonal[factor.dead] = 1.0
    values = start.values.T.to(damped.dtype).contiguous()
    unrounded = start.unrounded.T.to(damped.dtype).contiguous()
    original = weight.T.to(damped.dtype).contiguous()
    for _ in range(times):
        gradient = damped @ (values - original)  # anew each time, so that rounding errors of the updates do not add up
        changed = False
        for begin in range(0, len(values), block):
            end = min(begin + block, len(values))
            moved = torch.zeros_like(values[begin:end])
            for i in range(end - begin):
                column = begin + i
                slope = (
                    torch.addmv(gradient[column], moved[:i].T, damped[column, begin:column]) if i else gradient[column]
                )
                unrounded[column] = values[column] - slope / damped[column, column]
                rounded = round_column(column, unrounded[column])
                torch.sub(rounded, values[column], out=moved[i])
                values[column] = rounded
            if bool(moved.any()):
                changed = True
                gradient[end:].addmm_(damped[end:, begin:end], moved)
        if not changed:
            break
    return Propagated(values.T, unrounded.T, weighted_error(original.T, values.T, damped))


def _blocks(columns: int, block: int, group: int) -> list[tuple[int, int]]:
    """Cut the columns so that a dynamic group starts at a block's start or lies wholly inside a block.

    Otherwise the part of a group beyond its block would lack the errors of that block's earlier columns.
    """
    if 0 < group <= block:
        block = block // group * group
    cuts = set(range(0, columns, block)) | ({*range(0, columns, group)} if group > block else set())
    starts = sorted(cuts)
    return list(zip(starts, [*starts[1:], columns], strict=True))


def weighted_error(weight: Tensor, values: Tensor, hessian: Tensor) -> Tensor:
    """[N] (w - ŵ) H (w - ŵ)ᵀ of every row: the layer's squared output error (twice it, by the Hessian's factor 2) a
    token.
    """
    difference = (weight - values).to(hessian.dtype)
    return ((difference @ hessian) * difference).sum(1)
