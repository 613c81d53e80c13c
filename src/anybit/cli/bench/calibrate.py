"""Measuring the table of costs that kernels are chosen by (`ops.costs`), and how well it predicts shapes it was not made of."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anybit.cli.bench import limits
from anybit.cli.bench.rounds import Cold, Progress, interleave, silent
from anybit.ops import costs as known
from anybit.ops.costs import Costs, Curve

ROWS = (1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
SIDE_N, SIDE_K = 256, 2048
"""Rows of a weight for each thread, and columns: small enough to stay in the second cache at eight bits."""
GROUPS = (128, 32)
NARROW = (16, 32)
"""Rows of the weights that show what preparing x takes."""
PASSES = 4
"""Over all kernels, half of them ahead of what is measured from memory, half after."""
ROUNDS = 5
PATIENCE = 0.1
"""Seconds of a product that is still measured from memory."""
INTEGERS = tuple(f"uint{bits}" for bits in range(1, 9))
FAMILIES: dict[str, tuple[str, ...]] = {
    "int8": (*INTEGERS, "e2m1", "nf4"),
    "exact": (*INTEGERS, "nf4", "bf16", "fp16", "int16"),
    "int16": ("int16",),
    "bf16": (*INTEGERS, "nf4", "bf16"),
}
"""Family, named after its activations -> formats of weights of each element that its kernels unpack."""
ROUNDING = {"int8": (128, 127), "int16": (128, 4095), "bf16": (-2, 127), "exact": (-1, 127)}
"""How the native product is told to take x: the group, and the largest code (int16: chains are about as long as with one exponent)."""
LIMIT = 0.008
"""Seconds a call from which on no more rows are measured: in proportion from there."""
CHECK = (
    (1, 4096, 4096),
    (6, 4096, 4096),
    (100, 4096, 4096),
    (1, 11008, 4096),
    (3, 11008, 4096),
    (20, 11008, 4096),
    (256, 11008, 4096),
)
CHECK_ONE = tuple((m, 4096, 4096) for m in (1, 6, 100))
"""With one thread, where they take twice as long."""
CHECK_FORMATS = (
    ("int2/g64", "int8/g128"), ("int3/g128", "int8/g128"), ("int4/g128", "int8/g128"), ("nf4/g64", "int8/g128"), ("int8/row", "int8/row"),
    ("int4/g128", "bf16"), ("int4/g128", None), ("bf16", None),
)  # fmt: skip
FIT = tuple((m, 2560, 3072) for m in (1, 3, 8, 20, 100))
FIT_FORMATS = (
    ("int2/g64", "int8/g128"), ("int4/g128", "int8/g128"), ("nf4/g64", "int8/g128"), ("int8/row", "int8/row"),
    ("nf4/g64", None), ("bf16", None), ("int4/g128", "bf16"),
)  # fmt: skip
"""What overlap is fitted to, with weights from memory."""
OVERLAPS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""From reading and computing one after the other to the longer of both."""
TOLERANCE = 0.25
"""How far a prediction may be off."""


@dataclass(frozen=True)
class Checked:
    """A prediction and what was measured, both in seconds."""

    m: int
    n: int
    k: int
    weights: str
    act: str | None
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted / self.measured - 1.0

    @property
    def holds(self) -> bool:
        return abs(self.error) <= TOLERANCE


def spent(call: Callable[[], Any], least: float = 0.0005, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds a call with everything in cache: the mean of a stretch of `least` seconds, after one call that is not counted."""
    call()
    started, count = clock(), 0
    while True:
        call()
        count += 1
        took = clock() - started
        if took >= least:
            return took / count


def curve(measured: Callable[[int], float], rows: Sequence[int] = ROWS) -> list[float]:
    """Seconds for every number of rows; in proportion beyond a call that took longer than `LIMIT`."""
    found: list[float] = []
    for index, m in enumerate(rows):
        if found and found[-1] > LIMIT:
            found.append(found[-1] * m / rows[index - 1])
        else:
            found.append(measured(m))
    return found


def rising(seconds: Sequence[float]) -> list[float]:
    """Seconds for more and more rows, where none takes longer than any after it: whatever did was interrupted."""
    return list(itertools.accumulate(reversed(seconds), min))[::-1]


def solve_scales(
    coarse: Sequence[float], fine: Sequence[float], groups: tuple[int, int] = GROUPS
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(seconds a weight, seconds a scale) for every number of rows, of times a weight with scales for `groups` columns; none negative.

    How many weights a scale takes as long as is the median over five numbers of rows, for it changes little between them, and the
    difference of two measurements much.
    """
    weights = []
    ratios = []
    for one, other in zip(coarse, fine, strict=True):
        scale = max(0.0, (other - one) / (1 / groups[1] - 1 / groups[0]))
        weight = one - scale / groups[0]
        ratios.append(scale / weight if weight > 0 else 0.0)
    around = [statistics.median(ratios[max(0, index - 2) : index + 3]) for index in range(len(ratios))]
    for one, other, ratio in zip(coarse, fine, around, strict=True):
        weights.append(min(one / (1 + ratio / groups[0]), other / (1 + ratio / groups[1])))
    return tuple(weights), tuple(weight * ratio for weight, ratio in zip(weights, around, strict=True))


class Curves:
    """The kernels of every family and element over the numbers of rows, all in cache, with the pool as it is.

    n, k: sides of the weights.  quickest: seconds of the passes so far, for (kernel, group of the scales) and (family, rows of a narrow
    weight).
    """

    def __init__(self, threads: int, rows: Sequence[int]) -> None:
        import torch

        from anybit import _native, ops
        from anybit.formats import TensorFormat
        from anybit.tensors import quantize

        self.native, self.threads, self.rows = _native, threads, rows
        self.isa = str(_native.isa())
        self.title = f"{self.isa}, {threads} thread{'s' * (threads > 1)}"
        self.n, self.k = SIDE_N * threads, SIDE_K
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(self.n, self.k, generator=generator) / self.k**0.5
        self.x = {m: torch.randn(m, self.k, generator=generator) for m in rows}
        self.families = [name for name in FAMILIES if name != "bf16" or self.isa in known.WITH_BF16]
        self.subjects: dict[tuple[str, str], tuple[str, Any]] = {}
        self.quickest: dict[tuple[str, str], list[float]] = {}
        plain_types = {"bf16": torch.bfloat16, "fp16": torch.float16}

        def packed(name: str, group: int, count: int) -> Any:
            held = self.weight[:count]
            if name in plain_types:
                return ops.prepack(held.to(plain_types[name]))
            return ops.prepack(quantize(held, TensorFormat.parse(f"{name}/g{group}")))

        for family in self.families:
            for name in FAMILIES[family]:
                for group in GROUPS if family in ("int8", "int16") else GROUPS[:1]:
                    made = packed(name, group, self.n)
                    self.subjects[f"{family}/{made.element}", str(group)] = family, made
            for count in NARROW:
                narrow = packed("int16" if family == "int16" else "uint4", GROUPS[0], count)
                self.subjects[family, str(count)] = family, narrow

    def take(self, turn: int, progress: Progress) -> None:
        """A pass over all; the quicker of each and of what was found before counts."""
        for done, (key, (family, packed)) in enumerate(self.subjects.items(), turn * len(self.subjects)):
            progress(f"{self.title}: {key[0]}, {key[1]}", done, PASSES * len(self.subjects))
            found = self._once(family, packed)
            self.quickest[key] = rising([min(pair) for pair in zip(found, self.quickest.get(key, found), strict=True)])

    def _once(self, family: str, packed: Any) -> list[float]:
        import numpy as np

        group, levels = ROUNDING[family]

        def call(m: int) -> Callable[[], object]:
            rows_in, to = self.x[m].numpy(), np.empty((m, packed.n), np.float32)
            return lambda: self.native.matmul(packed.handle, rows_in, group, to, None, levels=levels)

        return curve(lambda m: spent(call(m)), self.rows)

    def solved(self) -> tuple[dict[str, tuple[float, ...]], dict[str, Curve]]:
        """(seconds a column of preparing x for every family, the curves of the kernels)."""
        prepare: dict[str, tuple[float, ...]] = {}
        kernels: dict[str, Curve] = {}
        for family in self.families:
            # the second half of a narrow weight takes as long as the first, so what is left over is spent on x
            narrow, wide = (self.quickest[family, str(count)] for count in NARROW)
            prepared = [max(0.0, min(one, 2 * one - two)) for one, two in zip(narrow, wide, strict=True)]
            prepare[family] = tuple(one / self.k for one in prepared)
            for name in dict.fromkeys(name for name, _ in self.subjects if name.startswith(f"{family}/")):
                times = [
                    [
                        max(one - less, 0.1 * one) / (self.n * self.k)
                        for one, less in zip(self.quickest[key], prepared, strict=True)
                    ]
                    for key in self.subjects
                    if key[0] == name
                ]
                kernels[name] = Curve(*solve_scales(times[0], times[-1]))
        return prepare, kernels


def measure(threads: int, progress: Progress = silent, rows: Sequence[int] = ROWS) -> Costs:
    """The costs of the active instruction set with the pool as `limits.threads(threads)` has set it."""
    import torch

    from anybit import ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    curves = Curves(threads, rows)
    for turn in range(PASSES // 2):
        curves.take(turn, progress)
    rounded = TensorFormat.parse("bf16")
    x, n, k = curves.x, curves.n, curves.k
    rounding = tuple(curve(lambda m: spent(lambda: ops.reference.round_activations(x[m], rounded)) / k, rows))
    others = {
        f"torch/{ops.packed.DENSE[dtype]}": plain(curves.weight.to(dtype), x, dtype, rows)
        for dtype in (torch.float32, torch.bfloat16)
    }
    slow = quantize(curves.weight, TensorFormat.parse("int4/g128"))
    unpacked = curve(lambda m: spent(lambda: ops.reference.matmul(x[m], slow, None, None)) / (n * k), rows)
    others["reference/integer4"] = Curve(tuple(unpacked), (0.0,) * len(rows))
    evict = limits.evictor()
    read = bandwidth(evict)
    nothing = empty(threads, evict)
    peaks = limits.peaks(threads)

    def made() -> Costs:
        prepare, kernels = curves.solved()
        return Costs(
            known.processor(),
            curves.isa,
            threads,
            read,
            nothing,
            GROUPS[0],
            tuple(rows),
            {"any": (4.0,) * len(rows)},
            prepare | {"rounding": rounding},
            kernels | others,
            peaks,
        )

    half, all_of = (part * len(curves.subjects) for part in (PASSES // 2, PASSES))
    progress(f"{curves.title}: weights from memory", half, all_of)
    found = list(cold(short(FIT, FIT_FORMATS, made()), FIT_FORMATS, evict, ROUNDS))
    for turn in range(PASSES // 2, PASSES):  # what else the machine does meanwhile seldom hits all of them
        curves.take(turn, progress)
    read = max(read, bandwidth(evict))
    peaks = {kind: max(rate, peaks[kind]) for kind, rate in limits.peaks(threads).items()}
    return fitted(made(), found)


def bandwidth(evict: Callable[[], object]) -> float:
    """Bytes/s of reading memory now as products read their weights, the best of some rounds."""
    return interleave({"read": limits.reader()}, 7, before=evict)["read"].most


def empty(threads: int, evict: Callable[[], object]) -> float:
    """Seconds of a product that has next to nothing to read or to compute: a panel for each thread, after the caches were cleared."""
    import torch

    from anybit import ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    weight = quantize(torch.ones(16 * threads, GROUPS[0]), TensorFormat.parse("int4/g128"))
    x, act = torch.ones(1, GROUPS[0]), TensorFormat.parse("int8/g128")

    def product(packed: Any) -> Callable[[], object]:
        return lambda: ops.matmul(x, packed, act=act)

    calls = [product(ops.prepack(weight)) for _ in range(limits.MOST_COPIES)]
    return interleave({"empty": Cold(calls)}, 7, before=evict)["empty"].least


def short(
    shapes: Sequence[tuple[int, int, int]], formats: Sequence[tuple[str, str | None]], table: Costs
) -> list[tuple[int, int, int]]:
    """The shapes of which no format is predicted to take longer than `PATIENCE`, and the first in any case."""
    from anybit.ops.matmul import predicted

    longest = [max(predicted((*shape, *fmt), table) for fmt in formats) for shape in shapes]
    return [shape for index, shape in enumerate(shapes) if index == 0 or longest[index] < PATIENCE]


def plain(weight: Any, x: dict[int, Any], dtype: Any, rows: Sequence[int]) -> Curve:
    """torch's own product with a plain weight."""
    import torch

    n, k = weight.shape
    times = curve(lambda m: spent(lambda: torch.nn.functional.linear(x[m].to(dtype), weight)) / (n * k), rows)
    return Curve(tuple(times), (0.0,) * len(rows))


Problem = tuple[int, int, int, str, str | None]


def family_of(problem: Problem) -> str:
    """The family of kernels that multiplies."""
    act = problem[4]
    return "exact" if act is None else "bf16" if act == "bf16" else "int8"


def fitted(made: Costs, found: Sequence[tuple[Problem, float]]) -> Costs:
    """With, for each family and number of rows, the overlap for which the squared errors of these problems, weights from memory, are least.
    Rows that no problem has take the overlap of the nearest that one has."""
    from anybit.ops.matmul import predicted

    groups: dict[tuple[str, int], list[tuple[Problem, float]]] = {}
    for problem, seconds in found:
        groups.setdefault((family_of(problem), problem[0]), []).append((problem, seconds))

    def error(key: tuple[str, int], overlap: float) -> float:
        tried = replace(made, overlap={"any": (overlap,) * len(made.rows)})
        return sum(math.log(predicted(problem, tried) / seconds) ** 2 for problem, seconds in groups[key])

    chosen = {key: min(OVERLAPS, key=functools.partial(error, key)) for key in groups}
    overlap = {}
    for family in dict.fromkeys(family for family, _ in chosen):
        known_rows = [m for name, m in chosen if name == family]
        nearest = (min(known_rows, key=lambda m: abs(math.log(m / rows))) for rows in made.rows)
        overlap[family] = tuple(chosen[family, m] for m in nearest)
    return replace(made, overlap={"any": next(iter(overlap.values()))} | overlap)


def cold(
    shapes: Sequence[tuple[int, int, int]],
    formats: Sequence[tuple[str, str | None]],
    evict: Callable[[], object],
    rounds: int,
    progress: Progress = silent,
) -> Iterator[tuple[Problem, float]]:
    """Problems and the seconds of `ops.matmul` on them with weights from memory: the least of the rounds, for other work on the
    machine only adds to it."""
    import torch

    from anybit import ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    generator = torch.Generator().manual_seed(1)

    def product(one: Any, x: torch.Tensor, rounded: TensorFormat | None) -> Callable[[], object]:
        return lambda: ops.matmul(x, one, act=rounded)

    sides = list(dict.fromkeys((n, k) for _, n, k in shapes))
    for index, (n, k) in enumerate(sides):
        few = torch.randn(64, k, generator=generator) / k**0.5
        weight = few.repeat(-(-n // 64), 1)[:n]
        x = {m: torch.randn(m, k, generator=generator) for m, other, _ in shapes if other == n}
        samplers, problems = {}, {}

        def told(what: str, done: float, total: float, side: str = f"{n} x {k}", before: int = index * rounds) -> None:
            progress(f"{side}: {what}", before + done, len(sides) * rounds)

        for spec, act in formats:
            told(f"packing {spec}", 0, 0)
            fmt = TensorFormat.parse(spec)
            w = weight.to(torch.bfloat16) if fmt.scale is None else quantize(weight, fmt)
            packed = [ops.prepack(w) for _ in range(min(4, max(2, limits.COPY_BYTES // int(w.nbytes))))]
            rounded = None if act is None else TensorFormat.parse(act)
            for m, rows in x.items():
                name = f"{m}x{n}x{k}, {spec} by {act or 'exact activations'}"
                samplers[name] = Cold([product(one, rows, rounded) for one in packed])
                problems[name] = m, n, k, spec, act
        # all of them in turns, so that what else the machine does seldom hits all rounds of one
        for name, sample in interleave(samplers, rounds, told, before=evict).items():
            yield problems[name], sample.least


def check(shapes: Sequence[tuple[int, int, int]] = CHECK, progress: Progress = silent) -> list[Checked]:
    """`ops.explain` against measurement on shapes that no curve was made of, with the active instruction set and pool."""
    from anybit import ops
    from anybit.ops.dispatch import costs

    shapes = short(shapes, CHECK_FORMATS, costs())
    return [
        Checked(*problem, float(ops.explain("matmul", problem)["predicted_seconds"]), seconds)
        for problem, seconds in cold(shapes, CHECK_FORMATS, limits.evictor(), ROUNDS, progress)
    ]
