"""The best scale of a block for any alphabet, exactly, by one sorted sweep.

Find s > 0 and codes q (values of the alphabet) of least  sum w (x - s q)^2.  For given codes the best scale is <wx, q> / <wq, q> and what
remains is <wx, x> - <wx, q>^2 / <wq, q>; for a given scale the best codes are the nearest ones. As 1/s grows from 0, every x_i / s
walks away from 0 and changes its code when it crosses the midpoint m of two neighbouring values, at 1/s = m / x_i. So all the code
vectors that can be best are met by going through these points in order, with two running sums: O(n L log(n L)) for n numbers and
L values, instead of a search over scales. With w = 1 the same codes are the nearest direction, cos = <x, q> / (|x| |q|).

Theorem E.1 of "Direction-Preserving Number Representations" (Zadeh and Constantinides, arXiv 2605.07662) proves the case w = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats.native import module

Array = NDArray[np.float64]
Tables = tuple[Array, Array, Array]

CHUNK = 1 << 20
"""Breakpoints sorted at a time."""


@dataclass(frozen=True)
class Sweep:
    """What the sweep found, all [blocks]: scale s (0 for a block of zeros), <wx, q> and <wq, q> of its codes, <wx, x>."""

    scale: Array
    projection: Array
    norm: Array
    energy: Array

    @property
    def error(self) -> Array:
        """Weighted squared error that remains, [blocks]."""
        return np.maximum(self.energy - self.scale * self.projection, 0)

    @property
    def cosine(self) -> Array:
        """Cosine of the angle between a block and its codes (meaningful for w = 1); 0 for a block of zeros."""
        size = np.sqrt(self.energy * self.norm)
        return np.divide(self.projection, size, out=np.zeros_like(size), where=size > 0)


def sides(levels: Array) -> tuple[Array, Array]:
    """The values that a positive and a negative number meet as it is scaled up from 0, each from the one nearest to 0 outwards."""
    grid = np.unique(np.asarray(levels, np.float64) + 0.0)
    if len(grid) < 2 or not np.isfinite(grid).all():
        raise FormatError("an alphabet has two or more different finite values")
    size = np.abs(grid)
    nearest = np.flatnonzero(size == size.min())  # two where -a and a are both nearest
    return grid[nearest[-1] :], grid[: nearest[0] + 1][::-1]


def sweep(x: NDArray[Any], levels: Array, weights: NDArray[Any] | None = None) -> Sweep:
    """The best positive scale of each block x [blocks, n] for the alphabet `levels` (any order); weights [n] or [blocks, n], not negative.

    Exact up to float64 rounding; empty blocks have the scale 0. FormatError for NaN, infinity, weights that are negative or do not fit, or
    an alphabet of less than two values.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise FormatError(
            f"the sweep takes finite numbers [blocks, n]; got the shape {list(x.shape)} or NaN or infinity"
        )
    w = None
    if weights is not None:
        w = np.asarray(weights, np.float64)
        if w.shape not in (x.shape, x.shape[1:], (1, x.shape[1])) or not (w >= 0).all() or not np.isfinite(w).all():
            raise FormatError(
                f"weights of the sweep are finite, not negative and [n] or [blocks, n]; got the shape {list(w.shape)} for {list(x.shape)}"
            )
        w = np.broadcast_to(w, x.shape)
    up, down = sides(levels)
    tables = _steps(up, down)
    if not x.shape[1]:
        return Sweep(*np.zeros((4, len(x))))
    if (fast := _sweep_native(x, weights, tables, up[0], down[0])) is not None:
        return Sweep(*fast)
    return Sweep(*_sweep_chunks(x, w, tables, up, down))


def _sweep_chunks(x: Array, w: Array | None, tables: Tables, up: Array, down: Array) -> Array:
    """`_sweep` of some blocks at a time."""
    rows = max(1, CHUNK // max(1, x.shape[1] * tables[0].shape[1]))
    parts = [
        _sweep(x[a : a + rows], None if w is None else w[a : a + rows], tables, up, down)
        for a in range(0, len(x), rows)
    ]
    if not parts:
        parts = [np.zeros((4, 0))]
    return np.concatenate(parts, axis=1)


def _steps(up: Array, down: Array) -> Tables:
    """(midpoint, step, step of the square) of every crossing, each [sign, step]; the shorter side padded by ones never reached."""
    middle, gain, growth = (np.zeros((2, max(len(up), len(down)) - 1)) for _ in range(3))
    middle[:] = np.inf
    for sign, side in enumerate((up, down)):
        k = len(side) - 1
        middle[sign, :k] = np.abs(side[:-1] + side[1:]) / 2
        gain[sign, :k] = np.diff(side)
        growth[sign, :k] = np.diff(side**2)
    return middle, gain, growth


def _total(terms: Array) -> Array:
    """Sums of rows from left to right, so that native code can give the same bits."""
    sums: Array = np.cumsum(terms, axis=1)[:, -1]
    return sums


def _sweep_native(x: Array, weights: NDArray[Any] | None, tables: Tables, up: float, down: float) -> Array | None:
    """What `_sweep` gives, from native code; None where that was not built, and for blocks or alphabets with nothing to cross."""
    native = module()
    if native is None or not x.shape[1] or not tables[0].shape[1]:
        return None
    w = None
    if weights is not None:
        w = np.ascontiguousarray(np.atleast_2d(np.asarray(weights, np.float64)))
        if w.ndim != 2 or w.shape[1] != x.shape[1] or w.shape[0] not in (1, len(x)):
            w = np.ascontiguousarray(np.broadcast_to(w, x.shape))
    found = np.empty((4, len(x)))
    native.sweep_scales(np.ascontiguousarray(x), w, *tables, up, down, found)
    return found


def _sweep(x: Array, w: Array | None, tables: Tables, up: Array, down: Array) -> Array:
    """[4, blocks]: scale, projection, norm, energy. The readable form of `native/generic/sweep.cc`."""
    blocks = len(x)
    wx = x if w is None else w * x
    energy = _total(wx * x)
    middle, gain, growth = tables
    negative = (x < 0).astype(np.intp)
    size = np.abs(x)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        points = np.where(size[..., None] > 0, middle[negative] / size[..., None], np.inf).reshape(blocks, -1)
    dot = (wx[..., None] * gain[negative]).reshape(blocks, -1)
    norm = growth[negative] if w is None else w[..., None] * growth[negative]
    norm = norm.reshape(blocks, -1)
    order = np.argsort(points, axis=1, kind="stable")  # equal points by element: the sums have one order
    reached = np.isfinite(np.take_along_axis(points, order, 1))
    dot = np.where(reached, np.take_along_axis(dot, order, 1), 0)
    norm = np.where(reached, np.take_along_axis(norm, order, 1), 0)
    first = np.where(negative == 1, down[0], up[0])
    start_dot = _total(wx * first)
    start_norm = _total((first if w is None else w * first) * first)
    dots = np.cumsum(np.concatenate([start_dot[:, None], dot], 1), axis=1)
    norms = np.cumsum(np.concatenate([start_norm[:, None], norm], 1), axis=1)
    # Sums of the same terms in another order leave a rest where the true sum is 0.
    usable = (dots > 0) & (norms > 1e-12 * norms.max(axis=1, keepdims=True))
    quality = np.where(usable, dots**2 / np.where(usable, norms, 1), -1.0)
    best = quality.argmax(axis=1)[:, None]
    d, n = np.take_along_axis(dots, best, 1)[:, 0], np.take_along_axis(norms, best, 1)[:, 0]
    found = np.take_along_axis(quality, best, 1)[:, 0] > 0
    d, n = np.where(found, d, 0), np.where(found, n, 0)
    return np.stack([np.where(found, d / np.where(found, n, 1), 0), d, n, energy])
