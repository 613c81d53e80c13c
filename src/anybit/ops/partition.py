"""Who does which part of a product: pure functions from sizes to plans, the same for threads, cores and simulated machines.

A product of m x n x k is cut into output tiles; the k of a tile is cut into steps. Plans differ in what a worker gets:

plan           a worker's share                                                    partial sums
output tiles   whole tiles, in turn                                                none
split k        whole tiles of a slice of k                                         every tile, one a slice
stripes        the same number of steps, taken down the columns of tiles           at the ends of a stripe only (MARLIN, arXiv 2408.11743)
longest first  pieces of unequal cost, the next longest to the least loaded        none; the last may be cut along k (COMET, 2410.12168)

Partial sums are added in the order of k, so results do not depend on which worker comes first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from anybit.errors import AnybitError


@dataclass(frozen=True)
class Piece:
    """Steps [begin, end) of the k of output tile `tile`, done by `worker` at one go.

    turn: its place among the pieces of the tile, in the order in which partial sums are added. turns: how many there are.
    """

    worker: int
    tile: int
    begin: int
    end: int
    turn: int
    turns: int

    @property
    def steps(self) -> int:
        """Steps of k."""
        return self.end - self.begin


def cut(total: int, parts: int, multiple: int = 1) -> list[tuple[int, int]]:
    """[0, total) in `parts` ranges whose ends are multiples of `multiple` (the last end is `total`) and whose sizes differ by one multiple.

    Ranges may be empty where there are more parts than multiples. AnybitError for sizes below one.
    """
    _positive(parts=parts, multiple=multiple)
    units = -(-total // multiple)
    ends = [min(total, units * i // parts * multiple) for i in range(parts + 1)]
    return list(pairwise(ends))


def output_tiles(tiles: int, steps: int, workers: int) -> list[Piece]:
    """Whole tiles dealt in turn."""
    _positive(steps=steps, workers=workers)
    return [Piece(tile % workers, tile, 0, steps, 0, 1) for tile in range(tiles)]


def split_k(tiles: int, steps: int, workers: int, splits: int) -> list[Piece]:
    """Every tile in `splits` slices of k, all slices dealt in turn, tiles fastest. AnybitError for more splits than steps."""
    _positive(steps=steps, workers=workers, splits=splits)
    if splits > steps:
        raise AnybitError(f"{steps} steps of k cannot be split {splits} times")
    slices = cut(steps, splits)
    return [
        Piece((turn * tiles + tile) % workers, tile, begin, end, turn, splits)
        for turn, (begin, end) in enumerate(slices)
        for tile in range(tiles)
    ]


def stripes(tiles: int, steps: int, workers: int, group: int = 1) -> list[Piece]:
    """Equal runs of steps, tile after tile, k fastest; `group`: steps that share a scale, which no stripe cuts unless one is shorter.

    Every worker has at most ceil(tiles * steps / workers) steps, rounded up to groups, and adds to at most one sum that a later worker
    goes on with. A tile shared by several is added up from its last part to its first, as MARLIN does: `turn` counts from the bottom.
    AnybitError for groups that do not divide the steps of a tile.
    """
    _positive(steps=steps, workers=workers, group=group)
    if steps % group:
        raise AnybitError(f"groups of {group} steps do not divide the {steps} steps of a tile")
    each = -(-tiles * steps // workers)
    each = -(-each // group) * group
    pieces: list[tuple[int, int, int, int]] = []
    for worker in range(workers):
        at, stop = worker * each, min((worker + 1) * each, tiles * steps)
        while at < stop:
            tile, begin = divmod(at, steps)
            end = min(steps, begin + stop - at)
            pieces.append((worker, tile, begin, end))
            at += end - begin
    count = [0] * tiles
    for _, tile, _, _ in pieces:
        count[tile] += 1
    seen = [0] * tiles
    found = []
    for worker, tile, begin, end in pieces:
        seen[tile] += 1
        found.append(Piece(worker, tile, begin, end, count[tile] - seen[tile], count[tile]))
    return found


def longest_first(costs: Sequence[float], workers: int) -> list[int]:
    """The worker of each piece: by falling cost, each to the least loaded worker, the lower number of a tie (Graham 1969).

    The longest load is at most 4/3 - 1/(3 workers) of the best possible one. AnybitError for negative costs.
    """
    _positive(workers=workers)
    if any(not cost >= 0 for cost in costs):
        raise AnybitError(f"costs are not negative; got {min(costs)}")
    loads = [(0.0, worker) for worker in range(workers)]
    heapq.heapify(loads)
    owner = [0] * len(costs)
    for piece in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, worker = heapq.heappop(loads)
        owner[piece] = worker
        heapq.heappush(loads, (load + costs[piece], worker))
    return owner


@dataclass(frozen=True)
class Share:
    """A share of piece `piece` of [begin, end) of its steps."""

    worker: int
    piece: int
    begin: int
    end: int


def longest_first_cut(costs: Sequence[float], steps: int, workers: int) -> list[Share]:
    """Longest first, then what is above the mean load is handed from the longest load to the least, whole steps at a time.

    costs: of whole pieces, each of `steps` equal steps of k. A piece that is cut is added up in the order of its steps. Ends where no
    handing over of whole steps shortens the longest load. AnybitError for negative costs.
    """
    _positive(steps=steps)
    held = [Share(worker, piece, 0, steps) for piece, worker in enumerate(longest_first(costs, workers))]
    loads = [sum(costs[s.piece] for s in held if s.worker == worker) for worker in range(workers)]
    mean = sum(costs) / workers
    while True:
        most = max(range(workers), key=lambda w: (loads[w], -w))
        least = min(range(workers), key=lambda w: (loads[w], w))
        best: tuple[float, int, int] | None = None
        for at, share in enumerate(held):
            step = costs[share.piece] / steps
            if share.worker != most or step <= 0:
                continue
            above, room = (loads[most] - mean) / step, (mean - loads[least]) / step
            wanted = int(room + 1e-9) or int((above + room) / 2 + 1e-9)
            count = min(share.end - share.begin, math.ceil(above - 1e-9), wanted)
            left = max(loads[most] - count * step, loads[least] + count * step)
            if count > 0 and left < loads[most] - 1e-12 and (best is None or (left, at) < best[:2]):
                best = left, at, count
        if best is None:
            break
        _, at, count = best
        share = held.pop(at)
        held.append(Share(least, share.piece, share.end - count, share.end))
        if share.end - count > share.begin:
            held.append(replace(share, end=share.end - count))
        loads[most] -= count * costs[share.piece] / steps
        loads[least] += count * costs[share.piece] / steps
    return sorted(held, key=lambda share: (share.piece, share.begin))


def loads(pieces: Sequence[Piece], workers: int) -> list[int]:
    """Steps of each worker."""
    found = [0] * workers
    for piece in pieces:
        found[piece.worker] += piece.steps
    return found


def utilization(items: int, workers: int) -> float:
    """Share of the workers that are busy while `items` equal items are done in waves: items / (workers ceil(items / workers))."""
    _positive(items=items, workers=workers)
    return items / (workers * math.ceil(items / workers))


def choose_splits(tiles: int, steps: int, workers: int, least_steps: int = 2, enough: float = 0.95) -> int:
    """The fewest slices of k that keep `enough` of the best possible share of the workers busy, each slice of at least `least_steps`.

    More slices mean more partial sums, so a few idle workers are better than many slices. AnybitError for sizes below one.
    """
    _positive(tiles=tiles, steps=steps, workers=workers, least_steps=least_steps)
    busy = {splits: utilization(tiles * splits, workers) for splits in range(1, max(1, steps // least_steps) + 1)}
    best = max(busy.values())
    return min(splits for splits, share in busy.items() if share >= enough * best)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise AnybitError(f"{name.replace('_', ' ')} must be at least 1; got {size}")
