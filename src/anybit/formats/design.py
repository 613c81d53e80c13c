"""How well the vectors of an alphabet cover all directions, and the search for alphabets that cover them better.

Once a scale has taken a block's magnitude, its elements only have to keep the direction. The coverage of an alphabet A in n
dimensions is the distribution of the angle between a random direction and the nearest vector with entries of A (Zadeh and Constantinides,
"Direction-Preserving Number Representations", arXiv 2605.07662). The sampled maximum is a lower bound of the covering radius and
grows with the sample: state count and seed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError
from anybit.formats.format import Format
from anybit.formats.sweep import sweep

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """Angles in degrees between `count` random directions in `n` dimensions and their nearest code vectors, free positive scale."""

    n: int
    count: int
    mean: float
    p99: float
    max: float


def directions(n: int, count: int, seed: int) -> Array:
    """Unit vectors [count, n], uniform on the sphere."""
    x = np.random.default_rng(seed).standard_normal((count, n))
    unit: Array = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def angles(alphabet: Format | Array, targets: Array, scale: str = "best") -> Array:
    """Degrees [count] between targets [count, n] and their code vectors; scale "best" (exact) or "absmax"."""
    levels = alphabet.values if isinstance(alphabet, Format) else np.unique(alphabet)
    if scale == "best":
        cosine = sweep(targets, levels).cosine
    elif scale == "absmax":
        grid = np.unique(levels)
        size = np.abs(targets).max(axis=1, keepdims=True) / np.abs(grid).max()
        codes = grid[np.searchsorted((grid[1:] + grid[:-1]) / 2, targets / size)]
        cosine = np.sum(codes * targets, axis=1) / (np.linalg.norm(codes, axis=1) * np.linalg.norm(targets, axis=1))
    else:
        raise FormatError(f"the scale of a coverage is 'best' or 'absmax'; got {scale!r}")
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def coverage(alphabet: Format | Array, n: int, count: int = 20_000, seed: int = 0, scale: str = "best") -> Coverage:
    """The coverage of an alphabet in n dimensions, measured on `count` directions of `seed`."""
    found = angles(alphabet, directions(n, count, seed), scale)
    return Coverage(n, count, float(found.mean()), float(np.quantile(found, 0.99)), float(found.max()))


def sign_count_bound(levels: Array, n: int) -> float:
    """Degrees that the covering radius in n dimensions cannot go below (theorem 2 of the paper): arccos(2 sqrt(m / H_n)).

    m is the smaller of the numbers of positive and of negative values, H_n the n-th harmonic number. The witness is u_k ~ 1 / sqrt(k).
    """
    m = min(int(np.sum(levels > 0)), int(np.sum(levels < 0)))
    harmonic = float(np.sum(1 / np.arange(1, n + 1)))
    return float(np.degrees(np.arccos(min(1.0, 2 * np.sqrt(m / harmonic)))))


@dataclass(frozen=True)
class Objective:
    """What an alphabet is rated by: these multiples of the largest, mean and 99 % angle of the sample. The defaults are the paper's."""

    max: float = 1.0
    mean: float = 0.15
    p99: float = 0.35

    def of(self, levels: Array, targets: Array) -> float:
        found = angles(levels, targets)
        return float(self.max * found.max() + self.mean * found.mean() + self.p99 * np.quantile(found, 0.99))


@dataclass(frozen=True)
class Shape:
    """Which alphabets are searched: zero, `positive` values above and `negative` below it, where `mirrored` the same."""

    positive: int
    negative: int
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.positive < 1 or self.negative < 0 or (self.mirrored and self.positive != self.negative):
            raise FormatError(f"an alphabet to search has a positive value, and mirrored ones equal sides; got {self}")

    def levels(self, parameters: Array) -> Array:
        """Ascending values with the largest magnitude 1. parameters: logs of log-distances, then log of the lowest negative size.

        The lowest positive value is 1 before normalising.
        """
        up = np.exp(np.concatenate([[0.0], np.cumsum(np.exp(parameters[: self.positive - 1]))]))
        if self.mirrored:
            down = up
        elif self.negative:
            rest = parameters[self.positive - 1 :]
            down = np.exp(rest[-1] + np.concatenate([[0.0], np.cumsum(np.exp(rest[:-1]))]))
        else:
            down = np.zeros(0)
        found: Array = np.concatenate([-down[::-1], [0.0], up])
        found /= np.abs(found).max()
        return found

    def parameters(self, levels: Array) -> Array:
        """The inverse of `levels`, up to scale. FormatError where the numbers of values do not fit."""
        up, down = np.sort(levels[levels > 0]), np.sort(-levels[levels < 0])
        if (len(up), len(down)) != (self.positive, self.negative) or 0.0 not in levels:
            raise FormatError(
                f"the start has {len(down)} negative and {len(up)} positive values, or no zero; wanted {self}"
            )
        gaps = np.log(np.diff(np.log(up)))
        if self.mirrored or not self.negative:
            return gaps
        return np.concatenate([gaps, np.log(np.diff(np.log(down))), [np.log(down[0] / up[0])]])


def refined(levels: Array, targets: Array, rounds: int, emphasis: float = 0.0) -> Array:
    """Lloyd's iteration under free scales: codes and scales of the targets, then the value of least squared error for each code. 0 stays.

    It lowers the mean of sin^(2 + 2 emphasis) of the angle: targets count by their own sin^(2 emphasis), so that a large emphasis
    works on the tail. The values it starts from decide where it ends.
    """
    found = np.unique(levels)
    for _ in range(rounds):
        fit = sweep(targets, found)
        scale = fit.scale[:, None]
        codes = np.searchsorted((found[1:] + found[:-1]) / 2, targets / np.where(scale > 0, scale, 1))
        worth = np.maximum(1 - fit.cosine**2, 1e-12)[:, None] ** emphasis
        weight = np.broadcast_to(worth * scale**2, targets.shape)
        mass = np.bincount(codes.ravel(), weight.ravel(), len(found))
        moved = np.bincount(codes.ravel(), (worth * scale * targets).ravel(), len(found)) / np.where(mass > 0, mass, 1)
        found = np.where((mass > 0) & (found != 0), moved, found)
        found = np.unique(found / np.abs(found).max())
    return found


def optimise(
    shape: Shape,
    starts: list[Array],
    n: int,
    objective: Objective | None = None,
    targets: tuple[int, int] = (4096, 16384),
    iterations: tuple[int, int] = (40, 80),
    population: int = 12,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Array:
    """Search an alphabet: differential evolution from the starts and their neighbourhood, then Powell's method on fresh directions.

    starts: alphabets of this shape (any scale); population: individuals a parameter; targets, iterations: of the two stages.
    The result has the largest magnitude 1 and, on the second sample, is rated no worse than any start.
    """
    from scipy.optimize import differential_evolution, minimize

    rating = objective or Objective()
    points = np.array([shape.parameters(np.asarray(s, np.float64)) for s in starts])
    bounds = list(zip(points.min(0) - 1, points.max(0) + 1, strict=True))
    size = max(5, population * points.shape[1])
    rng = np.random.default_rng(seed)
    drawn = points[rng.integers(len(points), size=size)] + 0.25 * rng.standard_normal((size, points.shape[1]))
    drawn[: len(points)] = points[:size]
    low, high = np.array(bounds).T
    first = directions(n, targets[0], seed + 1)
    generation = 0

    def tell(*_: Any, **__: Any) -> None:
        nonlocal generation
        generation += 1
        if progress:
            progress("differential evolution", min(generation, iterations[0]), iterations[0])

    def loss(sample: Array) -> Callable[[Array], float]:
        return lambda p: rating.of(shape.levels(np.clip(p, low - 1, high + 1)), sample)

    evolved = differential_evolution(
        loss(first),
        bounds,
        strategy="best1bin",
        maxiter=iterations[0],
        init=np.clip(drawn, low, high),
        mutation=(0.5, 1.0),
        recombination=0.7,
        polish=False,
        rng=rng,
        callback=tell,
    )
    fresh = loss(directions(n, targets[1], seed + 2))
    start = min([evolved.x, *points], key=fresh)
    if iterations[1]:
        steps = minimize(
            fresh, start, method="Powell", options={"maxfev": 25 * iterations[1], "xtol": 1e-3, "ftol": 1e-3}
        )
        start = min([start, np.clip(steps.x, low - 1, high + 1)], key=fresh)
        if progress:
            progress("Powell's method", 1, 1)
    return shape.levels(start)


def designed(
    start: Array,
    n: int = 16,
    emphases: tuple[float, ...] = (5.0, 7.0, 9.0),
    objective: Objective | None = None,
    targets: tuple[int, int] = (4096, 32768),
    iterations: tuple[int, int] = (40, 80),
    population: int = 12,
    seed: int = 3,
    grid: int | None = 256,
    progress: Callable[[str, int, int], None] | None = None,
) -> Array:
    """An alphabet like `start` (as many positive and negative values, and zero) that covers directions in n dimensions better.

    `refined` from `start` with each of the emphases, `optimise` from those and from `start`, then rounded to multiples of 1 / grid of
    the largest magnitude; the defaults are the way that led from nf4 to dp4 (another sample
    ends at another alphabet about as good). FormatError where rounding makes two values one.
    """
    start = np.unique(np.asarray(start, np.float64) + 0.0)
    start = start / np.abs(start).max()
    if grid is not None:
        _on_grid(start, grid)  # before a long search: what it finds is about as dense
    sample = directions(
        n, targets[1], seed
    )  # a small one is learnt by heart: its 99 % angle falls, that of others does not
    starts = [start]
    for done, emphasis in enumerate(emphases):
        if progress:
            progress("Lloyd's iteration", done, len(emphases))
        found = refined(start, sample, 30, emphasis)
        if len(found) == len(start):
            starts.append(found)
    shape = Shape(int(np.sum(start > 0)), int(np.sum(start < 0)))
    rating = objective or Objective(max=0, mean=1, p99=1)
    levels = optimise(shape, starts, n, rating, targets, iterations, population, seed, progress)
    return levels if grid is None else _on_grid(levels, grid)


def _on_grid(levels: Array, grid: int) -> Array:
    """levels as multiples of 1 / grid; FormatError where two become one."""
    rounded: Array = np.unique(np.round(levels * grid) / grid + 0.0)
    if len(rounded) < len(levels):
        raise FormatError(f"multiples of 1/{grid} are too coarse for {len(levels)} values; take a finer grid")
    return rounded
