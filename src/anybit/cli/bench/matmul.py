"""Matrix products of every format against torch in fp32 and bf16 and against the machine's limits, all in one interleaved run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from anybit.cli.bench.rounds import Case, Progress, Sample, ratio, silent, time_cases
from anybit.errors import AnybitError

COLD_BYTES = 2
"""Copies of a weight that are multiplied in turn together exceed the last-level cache so many times, so that each is read from memory."""
MOST_COPIES = 64


PEERS = ("torch fp32", "torch bf16")


@dataclass(frozen=True)
class Shape:
    """y[m, n] = x[m, k] W[n, k]^T."""

    m: int
    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """MxNxK; AnybitError where it is not three numbers above 0."""
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
        if not match or not all(int(side) > 0 for side in match.groups()):
            raise AnybitError(f"a shape is MxNxK with numbers above 0, such as 1x4096x4096; got {text!r}")
        return cls(*(int(side) for side in match.groups()))

    @property
    def operations(self) -> int:
        """A multiply-add counts as two."""
        return 2 * self.m * self.n * self.k


@dataclass(frozen=True)
class Line:
    """One case of one shape: seconds a call, the weight's bytes, and what that is of the limits and of torch."""

    shape: Shape
    name: str
    bytes: int
    seconds: Sample
    read_share: float | None
    peak_share: float | None
    over_fp32: float | None
    over_bf16: float | None
    floor: float | None = None
    """Seconds that no kernel goes below: reading the weight, or its operations at the peak of the vector instructions (tile units go
    beyond), whichever is longer; None where neither limit was measured."""
    best_peer: tuple[str, float] | None = None
    """The fastest case that is not ours, and its seconds."""

    @property
    def bandwidth(self) -> float:
        """Weight bytes a second."""
        return self.bytes / self.seconds.median

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.shape.operations / self.seconds.median

    def as_dict(self) -> dict[str, Any]:
        """Plain values; seconds, bytes/s and operations/s."""
        return {
            "m": self.shape.m,
            "n": self.shape.n,
            "k": self.shape.k,
            "case": self.name,
            "bytes": self.bytes,
            "seconds": self.seconds.as_dict(),
            "bytes_per_s": self.bandwidth,
            "operations_per_s": self.rate,
            "share_of_read_bandwidth": self.read_share,
            "share_of_int8_peak": self.peak_share,
            "over_torch_fp32": self.over_fp32,
            "over_torch_bf16": self.over_bf16,
            "format": self.name,
            "us": self.seconds.median * 1e6,
            "floor_us": None if self.floor is None else self.floor * 1e6,
            "best_peer": None if self.best_peer is None else self.best_peer[0],
            "best_peer_us": None if self.best_peer is None else self.best_peer[1] * 1e6,
        }


def copies(stored: int, cache: int, cold: bool) -> int:
    """How many copies of a weight of `stored` bytes it takes to leave the cache; 1 where it may stay in it."""
    if not cold:
        return 1
    return min(max(1, -(-COLD_BYTES * cache // max(stored, 1))), MOST_COPIES)


def rotating(calls: Sequence[Callable[[], object]]) -> Case:
    """A case that makes the next of the calls each time."""
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


def cases(
    shape: Shape, specs: Sequence[str], act: str | None, cache: int, cold: bool
) -> tuple[dict[str, Case], dict[str, int]]:
    """The cases of a shape and the bytes of each one's weight: every format, and torch in fp32 and bf16."""
    import torch

    from anybit import ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape.n, shape.k, generator=generator) / shape.k**0.5
    x = torch.randn(shape.m, shape.k, generator=generator)
    activation = TensorFormat.parse(act) if act else None
    made: dict[str, Case] = {}
    stored: dict[str, int] = {}

    def ours(packed: Any, rounded: TensorFormat | None) -> Callable[[], object]:
        return lambda: ops.matmul(x, packed, act=rounded)

    def theirs(matrix: torch.Tensor, rows: torch.Tensor) -> Callable[[], object]:
        return lambda: torch.nn.functional.linear(rows, matrix)

    for spec in specs:
        fmt = TensorFormat.parse(spec)
        w = (
            quantize(weight, fmt)
            if fmt.scale is not None
            else weight.to(torch.bfloat16 if spec == "bf16" else torch.float32)
        )
        size = int(w.nbytes)
        stored[str(fmt)] = size
        rounded = activation if fmt.scale is not None else None
        made[str(fmt)] = rotating([ours(ops.prepack(w), rounded) for _ in range(copies(size, cache, cold))])
    for name, dtype in (("torch fp32", torch.float32), ("torch bf16", torch.bfloat16)):
        matrix, rows = weight.to(dtype), x.to(dtype)
        size = matrix.numel() * matrix.element_size()
        stored[name] = size
        made[name] = rotating([theirs(matrix.clone(), rows) for _ in range(copies(size, cache, cold))])
    return made, stored


def measure(
    shape: Shape,
    specs: Sequence[str],
    act: str | None,
    rounds: int,
    cache: int,
    cold: bool,
    read_bandwidth: Callable[[], float] | None,
    int8_peak: float | None,
    progress: Progress = silent,
) -> list[Line]:
    """All cases of one shape. `read_bandwidth` measures bytes/s, once a round; `int8_peak` in operations/s."""
    timed, stored = cases(shape, specs, act, cache, cold)
    floor: list[float] = []

    def read() -> None:
        if read_bandwidth is not None:
            floor.append(read_bandwidth())

    found = time_cases(timed, rounds, progress=progress, each_round=read)
    lines = []
    peer = min(PEERS, key=lambda name: found[name].median)
    for name, seconds in found.items():
        share = None
        limits = [stored[name] / Sample(tuple(floor)).median] if floor else []
        limits += [shape.operations / int8_peak] if int8_peak else []
        if floor:
            share = ratio(Sample(tuple(stored[name] / one for one in seconds.values)), Sample(tuple(floor)))
        lines.append(
            Line(
                shape,
                name,
                stored[name],
                seconds,
                share,
                shape.operations / seconds.median / int8_peak if int8_peak else None,
                ratio(found["torch fp32"], seconds),
                ratio(found["torch bf16"], seconds),
                max(limits, default=None),
                (peer, found[peer].median),
            )
        )
    return lines
