"""Every step is done once, loads are bounded as promised, and sums are added in the order of k. Oracles: counting, and brute force."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import AnybitError
from anybit.ops.partition import (
    Piece,
    choose_splits,
    cut,
    loads,
    longest_first,
    longest_first_cut,
    output_tiles,
    split_k,
    stripes,
    utilization,
)

SIZES = st.integers(1, 12)


def check(pieces: list[Piece], tiles: int, steps: int, workers: int) -> dict[int, list[Piece]]:
    """Every step of every tile belongs to one piece; turns of a tile are 0 … turns - 1. The pieces by tile."""
    by_tile: dict[int, list[Piece]] = defaultdict(list)
    for piece in pieces:
        assert 0 <= piece.worker < workers and piece.steps > 0
        by_tile[piece.tile].append(piece)
    for tile in range(tiles):
        covered = sorted((p.begin, p.end) for p in by_tile[tile])
        assert [s for begin, end in covered for s in range(begin, end)] == list(range(steps))
        assert sorted(p.turn for p in by_tile[tile]) == list(range(len(covered)))
        assert {p.turns for p in by_tile[tile]} == {len(covered)}
    return by_tile


@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 16))
def test_ranges_cover_and_are_even(total: int, parts: int, multiple: int) -> None:
    ranges = cut(total, parts, multiple)
    assert len(ranges) == parts and ranges[0][0] == 0 and ranges[-1][1] == total
    assert all(a[1] == b[0] and a[1] % multiple in (0, total % multiple) for a, b in itertools.pairwise(ranges))
    units = [-(-(end - begin) // multiple) for begin, end in ranges]
    assert max(units) - min(units) <= 1


@given(SIZES, SIZES, SIZES, SIZES)
def test_tiles_and_splits(tiles: int, steps: int, workers: int, splits: int) -> None:
    check(output_tiles(tiles, steps, workers), tiles, steps, workers)
    if splits > steps:
        with pytest.raises(AnybitError, match=f"{steps} steps of k cannot be split {splits} times"):
            split_k(tiles, steps, workers, splits)
        return
    pieces = split_k(tiles, steps, workers, splits)
    for of_tile in check(pieces, tiles, steps, workers).values():
        assert [p.begin for p in sorted(of_tile, key=lambda p: p.turn)] == sorted(p.begin for p in of_tile)
    count = np.bincount([p.worker for p in pieces], minlength=workers)
    assert count.max() - count.min() <= 1


@settings(max_examples=200)
@given(SIZES, SIZES, st.integers(1, 40), st.sampled_from([1, 2, 3, 4]))
def test_stripes(tiles: int, groups: int, workers: int, group: int) -> None:
    steps = groups * group
    pieces = stripes(tiles, steps, workers, group)
    by_tile = check(pieces, tiles, steps, workers)
    each = math.ceil(math.ceil(tiles * steps / workers) / group) * group
    found = loads(pieces, workers)
    assert max(found) <= each and all(load == each for load in found[: tiles * steps // each])
    for worker in range(workers):
        mine = [p for p in pieces if p.worker == worker]
        # one run down the columns: consecutive steps, of which only the first and the last piece are parts of a tile
        places = [p.tile * steps + s for p in mine for s in range(p.begin, p.end)]
        assert places == list(range(places[0], places[0] + len(places))) if places else True
        assert all(p.turns == 1 for p in mine[1:-1])
        assert all(p.begin % group == 0 and p.end % group == 0 for p in mine)
        # at most one sum is handed on to a worker that comes after, at most one is taken over
        assert sum(p.turn > 0 for p in mine) <= 1 or len(mine) > 1
    for of_tile in by_tile.values():
        bottom_up = sorted(of_tile, key=lambda p: p.turn)
        assert [p.end for p in bottom_up] == sorted((p.end for p in of_tile), reverse=True)
        assert [p.worker for p in bottom_up] == sorted((p.worker for p in of_tile), reverse=True)


def test_stripes_of_a_published_size() -> None:
    """4096 x 4096 on 108 multiprocessors, tiles of 128 k x 128 n, groups of 128: 32 columns of 32 steps, ceil(1024 / 108) = 10 each."""
    pieces = stripes(32, 32, 108)
    assert max(loads(pieces, 108)) == 10 and sum(load > 0 for load in loads(pieces, 108)) == 103
    assert max(p.turns for p in pieces) == max((r + 31) // 10 + 1 for r in range(0, 10, 2)) == 4
    # whole columns would take 32 steps on 32 of the 108
    assert max(loads(output_tiles(32, 32, 108), 108)) == 32


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3))
def test_longest_first_is_within_its_bound(costs: list[int], workers: int) -> None:
    owner = longest_first(costs, workers)
    load = max(sum(c for c, w in zip(costs, owner, strict=True) if w == worker) for worker in range(workers))
    best = min(
        max(sum(c for c, w in zip(costs, choice, strict=True) if w == worker) for worker in range(workers))
        for choice in itertools.product(range(workers), repeat=len(costs))
    )
    assert best <= load <= Fraction(4 * workers - 1, 3 * workers) * best


def makespan(shares: list, costs: list[float], steps: int, workers: int) -> float:
    return max(sum(costs[s.piece] * (s.end - s.begin) / steps for s in shares if s.worker == w) for w in range(workers))


def test_the_example_of_mixed_tiles() -> None:
    """Nine tiles of cost 2 and nine of cost 1 on four workers (COMET): 7 whole, 27 / 4 cut; dealt in turn by kind 10."""
    costs = [2.0, 1.0] * 9
    owner = longest_first(costs, 4)
    assert max(sum(c for c, w in zip(costs, owner, strict=True) if w == i) for i in range(4)) == 7
    dealt = [sum(costs[i::4]) for i in range(4)]
    assert max(dealt) == 10
    assert makespan(longest_first_cut(costs, 4, 4), costs, 4, 4) == 6.75


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.5]), min_size=1, max_size=40), st.integers(1, 9), st.sampled_from([1, 8, 32])
)
def test_cutting_covers_every_step_and_never_lengthens(costs: list[float], workers: int, steps: int) -> None:
    shares = longest_first_cut(costs, steps, workers)
    for piece in range(len(costs)):
        ranges = [(s.begin, s.end) for s in shares if s.piece == piece]
        assert [i for begin, end in ranges for i in range(begin, end)] == list(range(steps))
    owner = longest_first(costs, workers)
    whole = max(sum(c for c, w in zip(costs, owner, strict=True) if w == i) for i in range(workers))
    bound = sum(costs) / workers
    after = makespan(shares, costs, steps, workers)
    assert after <= whole + 1e-9 and after >= bound - 1e-9
    # what is left is that steps are whole
    assert after <= bound + 2 * max(costs) / steps + 1e-9


def test_random_mixes_reach_the_bound() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        costs = rng.choice([1.0, 2.0], rng.integers(5, 60)).tolist()
        workers = int(rng.integers(2, 17))
        bound = sum(costs) / workers
        assert bound / makespan(longest_first_cut(costs, 32, workers), costs, 32, workers) >= 0.95


def test_utilization_and_the_choice_of_splits() -> None:
    assert utilization(8, 24) == pytest.approx(1 / 3) and utilization(24, 24) == 1 and utilization(25, 24) == 25 / 48
    assert choose_splits(8, 64, 24) == 3 and choose_splits(24, 64, 24) == 1 and choose_splits(1000, 64, 24) == 1
    assert choose_splits(1, 8, 24, least_steps=2) == 4, "slices stay two steps long"
    for tiles in range(1, 60):
        splits = choose_splits(tiles, 64, 24)
        best = max(utilization(tiles * s, 24) for s in range(1, 33))
        assert utilization(tiles * splits, 24) >= 0.95 * best
        assert all(utilization(tiles * s, 24) < 0.95 * best for s in range(1, splits))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(AnybitError, match="workers must be at least 1; got 0"):
        stripes(4, 4, 0)
    with pytest.raises(AnybitError, match="groups of 3 steps do not divide the 4 steps"):
        stripes(4, 4, 2, 3)
    with pytest.raises(AnybitError, match="costs are not negative"):
        longest_first([1.0, -2.0], 2)
    with pytest.raises(AnybitError, match="least steps must be at least 1"):
        choose_splits(4, 4, 2, 0)
