"""Measuring the table of costs that kernels are chosen by (`ops.costs`), and how well it predicts shapes it was not made of."""

from __future__ import annotations

import functools
import math
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
PASSES = 2
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
OVERLAPS = (0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 8.0)
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


def spent(call: Callable[[], Any], least: float = 0.0006, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds a call with everything in cache: the quicker of two stretches of `least` seconds, after one call that is not counted."""
    call()
    found = []
    for _ in range(2):
        started, count = clock(), 0
        while True:
            call()
            count += 1
            took = clock() - started
            if took >= least:
                break
        found.append(took / count)
        if took > LIMIT:
            break
    return min(found)


def curve(measured: Callable[[int], float], rows: Sequence[int] = ROWS) -> list[float]:
    """Seconds for every number of rows; in proportion beyond a call that took longer than `LIMIT`."""
    found: list[float] = []
    for index, m in enumerate(rows):
        if found and found[-1] > LIMIT:
            found.append(found[-1] * m / rows[index - 1])
        else:
            found.append(measured(m))
    return found


def solve_scales(coarse: float, fine: float, groups: tuple[int, int] = GROUPS) -> tuple[float, float]:
    """(seconds a weight, seconds a scale) of times a weight with scales for `groups` columns; neither negative."""
    scale = max(0.0, (fine - coarse) / (1 / groups[1] - 1 / groups[0]))
    weight = coarse - scale / groups[0]
    return (weight, scale) if weight > 0 else (coarse, 0.0)


def measure(threads: int, progress: Progress = silent, rows: Sequence[int] = ROWS) -> Costs:
    """The costs of the active instruction set with the pool as `limits.threads(threads)` has set it."""
    import numpy as np
    import torch

    from anybit import _native, ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    n, k = SIDE_N * threads, SIDE_K
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n, k, generator=generator) / k**0.5
    x = {m: torch.randn(m, k, generator=generator) for m in rows}
    active = str(_native.isa())
    plain_types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    families = [name for name in FAMILIES if name != "bf16" or active in known.WITH_BF16]
    subjects: dict[tuple[str, str], tuple[str, Any]] = {}
    for family in families:
        for name in FAMILIES[family]:
            for group in GROUPS if family in ("int8", "int16") else GROUPS[:1]:
                packed = ops.prepack(
                    weight.to(plain_types[name])
                    if name in plain_types
                    else quantize(weight, TensorFormat.parse(f"{name}/g{group}"))
                )
                subjects[f"{family}/{packed.element}", str(group)] = family, packed
        for count in NARROW:
            subjects[family, str(count)] = (
                family,
                ops.prepack(
                    quantize(weight[:count], TensorFormat.parse(f"{'int16' if family == 'int16' else 'uint4'}/g128"))
                ),
            )

    def once(family: str, packed: Any) -> list[float]:
        def call(m: int) -> Callable[[], object]:
            rows_in, to = x[m].numpy(), np.empty((m, packed.n), np.float32)
            group, levels = ROUNDING[family]
            return lambda: _native.matmul(packed.handle, rows_in, group, to, None, levels=levels)

        return curve(lambda m: spent(call(m)), rows)

    # each twice and far apart: what else the machine does meanwhile seldom hits both
    quickest: dict[tuple[str, str], list[float]] = {}
    for turn in range(PASSES):
        for done, (key, (family, packed)) in enumerate(subjects.items(), turn * len(subjects)):
            progress(
                f"{active}, {threads} thread{'s' * (threads > 1)}: {key[0]}, {key[1]}", done, PASSES * len(subjects)
            )
            found = once(family, packed)
            quickest[key] = [min(pair) for pair in zip(found, quickest.get(key, found), strict=True)]
    prepare: dict[str, tuple[float, ...]] = {}
    kernels: dict[str, Curve] = {}
    for family in families:
        # the second half of a narrow weight takes as long as the first, so what is left over is spent on x
        narrow, wide = (quickest[family, str(count)] for count in NARROW)
        prepared = [max(0.0, min(one, 2 * one - two)) for one, two in zip(narrow, wide, strict=True)]
        prepare[family] = tuple(one / k for one in prepared)
        for name in dict.fromkeys(name for name, _ in subjects if name.startswith(f"{family}/")):
            times = [
                [max(one - less, 0.1 * one) / (n * k) for one, less in zip(quickest[key], prepared, strict=True)]
                for key in subjects
                if key[0] == name
            ]
            both = [solve_scales(*pair) for pair in zip(times[0], times[-1], strict=True)]
            kernels[name] = Curve(tuple(one for one, _ in both), tuple(two for _, two in both))
    rounded = TensorFormat.parse("bf16")
    prepare["rounding"] = tuple(
        curve(lambda m: spent(lambda: ops.reference.round_activations(x[m], rounded)) / k, rows)
    )
    for dtype in (torch.float32, torch.bfloat16):
        kernels[f"torch/{ops.packed.DENSE[dtype]}"] = plain(weight.to(dtype), x, dtype, rows)
    slow = quantize(weight, TensorFormat.parse("int4/g128"))
    unpacked = curve(lambda m: spent(lambda: ops.reference.matmul(x[m], slow, None, None)) / (n * k), rows)
    kernels["reference/integer4"] = Curve(tuple(unpacked), (0.0,) * len(rows))
    peaks = limits.peaks(threads)
    evict = limits.evictor()
    bandwidth = interleave({"read": limits.reader()}, 7, before=evict)["read"].most
    made = Costs(
        known.processor(),
        active,
        threads,
        bandwidth,
        empty(threads, evict),
        GROUPS[0],
        tuple(rows),
        {"any": (4.0,) * len(rows)},
        prepare,
        kernels,
        peaks,
    )
    return fitted(made, list(cold(short(FIT, FIT_FORMATS, made), FIT_FORMATS, evict, ROUNDS)))


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
    """With, for each family and number of rows, the overlap for which the largest error of these problems, weights from memory, is least.
    Rows that no problem has take the overlap of the nearest that one has."""
    from anybit.ops.matmul import predicted

    groups: dict[tuple[str, int], list[tuple[Problem, float]]] = {}
    for problem, seconds in found:
        groups.setdefault((family_of(problem), problem[0]), []).append((problem, seconds))

    def error(key: tuple[str, int], overlap: float) -> float:
        tried = replace(made, overlap={"any": (overlap,) * len(made.rows)})
        return max(abs(math.log(predicted(problem, tried) / seconds)) for problem, seconds in groups[key])

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
) -> Iterator[tuple[Problem, float]]:
    """Problems and the seconds of `ops.matmul` on them with weights from memory: the least of the rounds, for other work on the
    machine only adds to it."""
    import torch

    from anybit import ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    generator = torch.Generator().manual_seed(1)
    for n, k in dict.fromkeys((n, k) for _, n, k in shapes):
        few = torch.randn(64, k, generator=generator) / k**0.5
        weight = few.repeat(-(-n // 64), 1)[:n]
        for spec, act in formats:
            fmt = TensorFormat.parse(spec)
            w = weight.to(torch.bfloat16) if fmt.scale is None else quantize(weight, fmt)
            size = int(w.nbytes)
            packed = [ops.prepack(w) for _ in range(min(4, max(2, limits.COPY_BYTES // size)))]
            rounded = None if act is None else TensorFormat.parse(act)

            def product(one: Any, x: torch.Tensor, rounded: TensorFormat | None) -> Callable[[], object]:
                return lambda: ops.matmul(x, one, act=rounded)

            samplers = {}
            for m in (m for m, other, _ in shapes if other == n):
                x = torch.randn(m, k, generator=generator)
                samplers[str(m)] = Cold([product(one, x, rounded) for one in packed])
            for name, sample in interleave(samplers, rounds, before=evict).items():
                yield (int(name), n, k, spec, act), sample.least


def check(shapes: Sequence[tuple[int, int, int]] = CHECK, progress: Progress = silent) -> list[Checked]:
    """`ops.explain` against measurement on shapes that no curve was made of, with the active instruction set and pool."""
    from anybit import ops
    from anybit.ops.dispatch import costs

    found = []
    evict = limits.evictor()
    shapes = short(shapes, CHECK_FORMATS, costs())
    for done, (problem, seconds) in enumerate(cold(shapes, CHECK_FORMATS, evict, ROUNDS)):
        progress("predicted against measured", done, len(shapes) * len(CHECK_FORMATS))
        found.append(Checked(*problem, float(ops.explain("matmul", problem)["predicted_seconds"]), seconds))
    return found
