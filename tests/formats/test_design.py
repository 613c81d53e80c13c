"""What must hold for design.py. Oracles: the paper's theorems and its table of a million directions, brute force in the plane."""

from __future__ import annotations

import numpy as np
import pytest

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.design import (
    Objective,
    Shape,
    angles,
    coverage,
    designed,
    directions,
    optimise,
    refined,
    sign_count_bound,
)

# Repository of the paper (arXiv 2605.07662): positive levels optimised for n = 16, and mean and 99 % angle over 10^6 directions.
PAPER_16 = np.array([1, 2.1206, 3.4016, 5.0364, 7.2473, 10.4646, 13.1779])
TABLE_16 = {"e2m1": (4.434, 5.638), "int4": (4.179, 6.595), "e1m2": (4.433, 6.880), "e3m0": (8.300, 10.473)}
MIRRORED = np.concatenate([-PAPER_16[::-1], [0.0], PAPER_16])


@pytest.mark.parametrize("name", TABLE_16)
def test_the_paper_s_table_in_16_dimensions(name: str) -> None:
    found = coverage(get(name), 16, count=20_000)
    mean, p99 = TABLE_16[name]
    # 20 000 directions: the standard error of the mean is 0.005 degrees; that of the 99 % angle is 0.02 and, for integer grids, 0.05.
    assert found.mean == pytest.approx(mean, abs=0.02)
    assert found.p99 == pytest.approx(p99, abs=0.12 if name in ("int4", "e1m2") else 0.06)
    assert found.p99 < found.max < found.p99 + 4


def test_the_paper_s_alphabet_and_the_worth_of_the_scale() -> None:
    best, absmax = coverage(MIRRORED, 16), coverage(MIRRORED, 16, scale="absmax")
    assert best.mean == pytest.approx(4.285, abs=0.02) and best.p99 == pytest.approx(5.333, abs=0.07)
    assert absmax.mean == pytest.approx(4.73, abs=0.03)
    with pytest.raises(FormatError, match="'best' or 'absmax'"):
        coverage(MIRRORED, 16, scale="mse")


@pytest.mark.parametrize("seed", [0, 11])
def test_dp4_beats_nf4_and_the_paper_s_alphabet_in_mean_and_tail(seed: int) -> None:
    dp4, nf4, paper = (coverage(a, 16, 20_000, seed) for a in (get("dp4"), get("nf4"), MIRRORED))
    # The same directions for all three, so that differences are far less noisy than the angles.
    assert dp4.mean < nf4.mean - 0.04 and dp4.mean < paper.mean - 0.35
    assert dp4.p99 < nf4.p99 - 0.02 and dp4.p99 < paper.p99 - 0.25
    assert dp4.mean == pytest.approx(3.865, abs=0.015) and dp4.p99 == pytest.approx(4.994, abs=0.06)


def test_the_covering_radius_in_the_plane_is_pi_over_the_number_of_points() -> None:
    # Theorem 1: equality in the plane for {-a, a}, strictly more for other alphabets of two values.
    turn = np.linspace(0, 2 * np.pi, 20_001)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    assert angles(np.array([-1.0, 1.0]), circle).max() == pytest.approx(180 / 4, abs=0.02)
    for other in ([-1.0, 2.0], [-0.5, 1.0], [0.0, 1.0]):
        assert angles(np.array(other), circle).max() > 45.1


def test_the_sign_count_bound_is_never_violated() -> None:
    rng = np.random.default_rng(0)
    n = 1000
    witness = (1 / np.sqrt(np.arange(1, n + 1)))[None]
    witness = witness / np.linalg.norm(witness)
    for _ in range(40):
        levels = np.concatenate([-np.exp(rng.normal(size=1)), [0.0], np.exp(rng.normal(size=rng.integers(1, 3)))])
        # The witness or its mirror image meets the side with fewer values.
        worst = max(angles(levels, witness)[0], angles(levels, -witness)[0])
        assert worst >= sign_count_bound(levels, n) - 1e-9
    assert sign_count_bound(np.array([-1.0, 0, 1]), 1000) == pytest.approx(
        np.degrees(np.arccos(2 / np.sqrt(7.485))), abs=0.01
    )


def test_directions_are_unit_vectors_of_the_seed() -> None:
    x = directions(5, 100, 3)
    assert np.allclose(np.linalg.norm(x, axis=1), 1) and np.array_equal(x, directions(5, 100, 3))
    assert not np.array_equal(x, directions(5, 100, 4))


def test_refining_lowers_the_mean_and_keeps_zero() -> None:
    targets = directions(16, 2000, 1)
    start = np.unique(get("int4").values)
    better = refined(start, targets, 5)
    assert len(better) == 16 and 0.0 in better and np.abs(better).max() == 1
    assert np.mean(np.sin(np.radians(angles(better, targets))) ** 2) < 0.97 * np.mean(
        np.sin(np.radians(angles(start, targets))) ** 2
    )


@pytest.mark.parametrize("shape", [Shape(7, 7, mirrored=True), Shape(8, 7), Shape(3, 0), Shape(1, 2)])
def test_parameters_are_the_levels_up_to_scale(shape: Shape) -> None:
    rng = np.random.default_rng(2)
    up = np.cumsum(rng.uniform(0.1, 1, shape.positive))
    down = up if shape.mirrored else np.cumsum(rng.uniform(0.1, 1, shape.negative))
    levels = np.concatenate([-down[::-1], [0.0], up])
    again = shape.levels(shape.parameters(levels))
    assert np.allclose(again, levels / np.abs(levels).max(), atol=1e-12)
    with pytest.raises(FormatError, match="wanted Shape"):
        shape.parameters(np.append(levels, 99.0))


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(FormatError, match="mirrored ones equal sides"):
        Shape(3, 2, mirrored=True)


def test_a_short_search_beats_its_starts() -> None:
    objective, shape = Objective(max=0, mean=1, p99=1), Shape(2, 1)
    starts = [np.array([-1.0, 0, 1, 1.5]), np.array([-1.0, 0, 0.2, 2])]
    seen: list[str] = []
    found = optimise(
        shape,
        starts,
        4,
        objective,
        (200, 400),
        (6, 4),
        population=4,
        seed=5,
        progress=lambda what, *_: seen.append(what),
    )
    sample = directions(4, 400, 7)
    assert len(found) == 4 and np.abs(found).max() == 1
    assert objective.of(found, sample) < min(objective.of(s, sample) for s in starts) - 0.5
    assert "differential evolution" in seen and "Powell's method" in seen
    again = optimise(shape, starts, 4, objective, (200, 400), (6, 4), population=4, seed=5)
    assert np.array_equal(found, again)


def test_designed_beats_where_it_started_and_lies_on_the_grid() -> None:
    start = np.array([-4.0, -1, 0, 1, 4])
    told: list[str] = []
    found = designed(start, n=8, emphases=(1.0,), targets=(512, 1024), iterations=(3, 2), population=2, grid=64,
                     progress=lambda stage, done, total: told.append(stage))  # fmt: skip
    assert len(found) == 5 and np.abs(found).max() == 1 and 0 in found
    assert np.array_equal(found * 64, np.round(found * 64))
    assert {"Lloyd's iteration", "differential evolution"} <= set(told)
    before, after = coverage(start, 8, 5000, seed=9), coverage(found, 8, 5000, seed=9)
    assert after.mean + after.p99 < before.mean + before.p99 - 0.5
    with pytest.raises(FormatError, match="multiples of 1/2 are too coarse for 16 values"):
        designed(get("nf4").values, 4, (), targets=(64, 64), iterations=(1, 0), population=1, grid=2)


def test_a_grid_too_coarse_is_refused_before_the_search() -> None:
    told: list[str] = []
    with pytest.raises(FormatError, match="multiples of 1/256 are too coarse for 253 values"):
        designed(get("e4m3fn").values, grid=256, progress=lambda stage, done, total: told.append(stage))
    assert not told
