"""Roundings of a matrix to every format in every mode, against the libraries that can do the same and the time its bytes take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anybit.cli.bench.rounds import Progress, Sample, Steady, interleave, ratio, silent
from anybit.formats import MODES, TensorFormat, get

FORMATS = ("fp16", "bf16", "e4m3fn", "e5m2", "e2m1", "posit8_1", "fixed8_8", "mxfp4", "nvfp4")
KEY = 0
BARS = {"pychop": 30.0, "qtorch": 10.0, "gfloat": 10.0, "ml_dtypes": 10.0, "cpfloat": 1.0}
"""How many times as fast as each library anybit aims to be."""
BLOCK_BAR = 3e-9
"""Seconds an element that quantizing to a block format may take."""


@dataclass(frozen=True)
class Case:
    """float32 numbers to `format` by `mode`: rounded in float32, or quantized to packed codes and scales for block formats."""

    format: str
    mode: str

    @property
    def block(self) -> bool:
        """Is it a block format?"""
        return TensorFormat.parse(self.format).scale is not None

    def moved(self, shape: tuple[int, int]) -> float:
        """Bytes that must be read and written."""
        elements = shape[0] * shape[1]
        return 4 * elements + (TensorFormat.parse(self.format).nbytes(shape) if self.block else 4 * elements)

    def call(self, x: NDArray[np.float32]) -> Callable[[], object]:
        """anybit's side of the case."""
        key = KEY if self.mode.startswith("stochastic") else None
        if not self.block:
            fmt = get(self.format)
            return lambda: fmt.round(x, self.mode, key)  # type: ignore[arg-type]
        import torch

        from anybit.tensors import quantize

        tensor, spec = torch.from_numpy(x), TensorFormat.parse(self.format)
        return lambda: quantize(tensor, spec, mode=self.mode, key=key)  # type: ignore[arg-type]


def cases(formats: Sequence[str] = FORMATS, modes: Sequence[str] = MODES) -> list[Case]:
    """Every format in every mode."""
    return [Case(fmt, mode) for fmt in formats for mode in modes]


class Library(Protocol):
    """Another library: answers {"seconds", "elements"} or {"lacks"}; see benchmarks/README.md."""

    def ask(self, request: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Theirs:
    """A library in a case: seconds for all elements, scaled up from `elements` of them; how many times as fast anybit is."""

    seconds: Sample
    elements: int
    ratio: float


@dataclass(frozen=True)
class Line:
    """One case: seconds of anybit, what the bytes alone would take (None where no bandwidth was measured), and the libraries."""

    case: Case
    elements: int
    seconds: Sample
    floor: float | None
    theirs: Mapping[str, Theirs]

    @property
    def floor_share(self) -> float | None:
        """The floor's part of anybit's time."""
        return None if self.floor is None else self.floor / self.seconds.median

    @property
    def per_element(self) -> float:
        """Seconds an element."""
        return self.seconds.median / self.elements

    def as_dict(self) -> dict[str, Any]:
        """Plain values, seconds for all elements."""
        return {
            "format": self.case.format,
            "mode": self.case.mode,
            "elements": self.elements,
            "seconds": self.seconds.as_dict(),
            "floor_seconds": self.floor,
            "share_of_floor": self.floor_share,
            "libraries": {
                name: {
                    "seconds": one.seconds.as_dict(),
                    "measured_elements": one.elements,
                    "scaled": one.elements < self.elements,
                    "anybit_is_faster": one.ratio,
                }
                for name, one in self.theirs.items()
            },
        }


def measure_case(
    case: Case,
    x: NDArray[np.float32],
    rounds: int,
    libraries: Mapping[str, Library],
    read_bandwidth: Callable[[], float] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Line:
    """One case over interleaved rounds of `Steady` samples; the bandwidth once before them."""
    import json

    ours, request = Steady(case.call(x), clock), json.dumps({"format": case.format, "mode": case.mode})
    able = [name for name, library in libraries.items() if "lacks" not in library.ask(request)]
    floor = None if read_bandwidth is None else case.moved((x.shape[0], x.shape[1])) / read_bandwidth()
    measured: dict[str, int] = {}

    def theirs(name: str) -> float:
        answer = libraries[name].ask(request)
        measured[name] = int(answer["elements"])
        return float(answer["seconds"]) * x.size / measured[name]

    samples = interleave({"": ours} | {name: partial(theirs, name) for name in able}, rounds)
    mine = samples.pop("")
    return Line(
        case,
        x.size,
        mine,
        floor,
        {name: Theirs(sample, measured[name], ratio(sample, mine)) for name, sample in samples.items()},
    )


def measure(
    wanted: Sequence[Case],
    shape: tuple[int, int],
    rounds: int,
    libraries: Mapping[str, Library],
    read_bandwidth: Callable[[], float] | None = None,
    progress: Progress = silent,
) -> list[Line]:
    """All cases on the same standard normal numbers."""
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    lines = []
    for done, case in enumerate(wanted):
        progress(f"{case.format}, {case.mode}", done, len(wanted))
        lines.append(measure_case(case, x, rounds, libraries, read_bandwidth))
    return lines


@dataclass(frozen=True)
class Verdict:
    """anybit against one library over all cases it can do: the median and least ratio, where the least is, and how many meet the bar."""

    library: str
    bar: float | None
    cases: int
    met: int
    median: float
    least: float
    worst: Case


def verdicts(lines: Sequence[Line]) -> list[Verdict]:
    """One for every library that could do a case."""
    found = []
    for name in {name: None for line in lines for name in line.theirs}:
        ratios = [(line.theirs[name].ratio, line.case) for line in lines if name in line.theirs]
        least, worst = min(ratios, key=lambda pair: pair[0])
        bar = BARS.get(name)
        met = sum(bar is None or value >= bar for value, _ in ratios)
        found.append(
            Verdict(name, bar, len(ratios), met, statistics.median(value for value, _ in ratios), least, worst)
        )
    return found
