"""What products cost on a machine: a small table that `anybit doctor --calibrate` measures, and one that is shipped.

A product takes, besides the constant time of a call and k times that of preparing its activations, the longer of reading and of
computing, smoothly: (read^p + work^p)^(1/p), for the two overlap imperfectly, more or less so with the rows m.  Reading is the weight's
bytes, x and y over the bandwidth of reading memory; work is n k (weight(m) + scale(m) / group), with curves that were measured in cache.
The weights are taken to come from memory, as those of a model do.  This is the roofline (Williams, Waterman, Patterson, CACM 52(4),
2009) with measured ceilings for each kernel, width and number of rows.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from anybit import __version__
from anybit.errors import AnybitError

SCHEMA = 1
SHIPPED = Path(__file__).with_name("shipped_costs.json")
WITH_BF16 = frozenset({"amx", "avx512bf16"})
"""Instruction sets whose kernels multiply bf16 as such."""
LIKE = {"avx512vnni": "avx2", "avxvnni": "avx2", "i8mm": "neon"}
"""Instruction sets that were never measured, and the one whose shipped costs stand in."""
edition = 0
"""How often tables were forgotten: what was chosen by an earlier one is chosen again."""


@dataclass(frozen=True)
class Curve:
    """Seconds a weight, and a scale of the weight, for every number of rows of the table."""

    weight: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs with one instruction set and number of threads of one processor.

    bandwidth: bytes/s of reading memory.  call: seconds.  widest: columns a scale from which on fewer scales save nothing, for kernels
    add up in parts anyway.  rows: where curves are known, ascending from 1.  overlap: family of kernels (or "any") -> p of the module's
    formula for these rows.  prepare: activations (int8, exact, bf16; rounding: in torch, for what no kernel rounds) -> seconds a column
    of x.  kernels: "int8/integer4" and the like -> curve.  peaks: operations/s, for people.
    """

    processor: str
    isa: str
    threads: int
    bandwidth: float
    call: float
    widest: int
    rows: tuple[int, ...]
    overlap: Mapping[str, tuple[float, ...]]
    prepare: Mapping[str, tuple[float, ...]]
    kernels: Mapping[str, Curve]
    peaks: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.rows[:1] != (1,) or list(self.rows) != sorted(set(self.rows)):
            raise AnybitError(f"rows ascend from 1; got {self.rows}")
        overlaps = {f"overlap {name}": values for name, values in self.overlap.items()}
        named = {
            "bandwidth": (self.bandwidth,),
            "widest": (self.widest,),
            "peaks": tuple(self.peaks.values()),
        } | overlaps
        for what, values in named.items():
            if not all(0 < value < math.inf for value in values):
                raise AnybitError(f"{what} must be positive; got {values}")
        curves = {f"prepare {name}": values for name, values in self.prepare.items()}
        curves |= {f"{name} weight": curve.weight for name, curve in self.kernels.items()}
        curves |= {f"{name} scale": curve.scale for name, curve in self.kernels.items()}
        for what, values in ({"call": (self.call,)} | curves).items():
            if not all(0 <= value < math.inf for value in values):
                raise AnybitError(f"costs are not negative; {what} holds {values}")
        for what, values in (overlaps | curves).items():
            if len(values) != len(self.rows):
                raise AnybitError(f"{what} has {len(values)} values for {len(self.rows)} numbers of rows")
        if not self.kernels or "any" not in self.overlap:
            raise AnybitError("a table without kernels or an overlap for any says nothing")

    def at(self, values: Sequence[float], m: int) -> float:
        """A curve between the rows it is known at; in proportion to them beyond the last."""
        if m >= self.rows[-1]:
            return values[-1] * m / self.rows[-1]
        above = next(index for index, rows in enumerate(self.rows) if rows >= m)
        if self.rows[above] == m or above == 0:
            return values[above]
        low, high = self.rows[above - 1], self.rows[above]
        return values[above - 1] + (values[above] - values[above - 1]) * (m - low) / (high - low)

    def curve(self, family: str, element: str) -> Curve:
        """Of a family of kernels for an element; where it is not in the table, of the next wider of its kind, else the family's slowest."""
        found = self.kernels.get(f"{family}/{element}")
        if found is not None:
            return found
        kind, bits = split(element)
        siblings = [
            (split(name.split("/")[1]), curve) for name, curve in self.kernels.items() if name.split("/")[0] == family
        ]
        wider = sorted(((width, curve.weight) for (other, width), curve in siblings if other == kind and width >= bits))
        if wider:
            return next(curve for (other, width), curve in siblings if other == kind and width == wider[0][0])
        if siblings:
            return max((curve for _, curve in siblings), key=lambda curve: curve.weight[-1])
        return max(self.kernels.values(), key=lambda curve: curve.weight[-1])

    def seconds(self, family: str, element: str, m: int, n: int, k: int, group: int, nbytes: int) -> float:
        """Predicted time of y[m, n] = x[m, k] W[n, k]^T with a weight of `nbytes` and scales for `group` columns (0: a row)."""
        curve = self.curve(family, element)
        rows = max(m, 1)
        work = n * k * (self.at(curve.weight, rows) + self.at(curve.scale, rows) / min(group or k, self.widest))
        read = (nbytes + 4 * m * (n + k)) / self.bandwidth
        overlap = self.at(self.overlap.get(family, self.overlap["any"]), min(rows, self.rows[-1]))
        return self.call + self.prepared(family, m, k) + combine(read, work, overlap)

    def prepared(self, name: str, m: int, k: int) -> float:
        """Seconds of preparing x [m, k]: for a family's kernels, or "rounding" it to a format in torch."""
        found = self.prepare.get(name)
        return k * self.at(found, max(m, 1)) if found else 0.0

    def with_threads(self, threads: int) -> Costs:
        """The same machine with another number of threads, unmeasured: work divides, and bandwidth does up to two threads (a core does not
        take all of it) and grows little beyond."""

        def reach(count: int) -> float:
            return min(count, 2 + 0.25 * max(0, count - 2))

        factor = self.threads / threads
        kernels = {
            name: Curve(tuple(factor * one for one in curve.weight), tuple(factor * one for one in curve.scale))
            for name, curve in self.kernels.items()
        }
        bandwidth = self.bandwidth * reach(threads) / reach(self.threads)
        peaks = {name: rate / factor for name, rate in self.peaks.items()}
        return replace(self, threads=threads, bandwidth=bandwidth, kernels=kernels, peaks=peaks)


def split(element: str) -> tuple[str, int]:
    """("integer", 4) of "integer4"; the width of names without one is 0."""
    match = re.fullmatch(r"([a-z]+)(\d*)", element)
    return (match[1], int(match[2] or 0)) if match else (element, 0)


def combine(read: float, work: float, overlap: float) -> float:
    """(read^p + work^p)^(1/p), without overflow."""
    larger, smaller = max(read, work), min(read, work)
    return larger * (1.0 + (smaller / larger) ** overlap) ** (1.0 / overlap) if larger > 0 else 0.0


def processor() -> str:
    """The processor's name with family, model and stepping where the system tells, as costs are kept for it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    fields = []
    for field in ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part"):
        match = re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE)
        if match:
            fields.append(match[1].strip() if field == "model name" else f"{field} {match[1].strip()}")
    return ", ".join(fields) or platform.processor() or platform.machine() or "unknown"


def cache_folder() -> Path:
    """Where anybit keeps what it can make again: $ANYBIT_CACHE, else $XDG_CACHE_HOME/anybit, else ~/.cache/anybit."""
    chosen = os.environ.get("ANYBIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "anybit"


def path(isa: str, threads: int, name: str | None = None) -> Path:
    """The file of a calibration: one for each processor, instruction set, number of threads and version of anybit."""
    key = hashlib.sha256(f"{name or processor()}|{__version__}|{SCHEMA}".encode()).hexdigest()[:12]
    return cache_folder() / f"costs-{isa}-{threads}-{key}.json"


def as_dict(costs: Costs) -> dict[str, Any]:
    """Plain values, to six digits."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, Mapping):
            return {name: short(one) for name, one in value.items()}
        return [short(one) for one in value] if isinstance(value, list | tuple) else value

    found: dict[str, Any] = short(asdict(costs))
    return found


def from_dict(found: Any) -> Costs:
    """AnybitError for anything that `as_dict` does not write."""
    try:
        return Costs(
            str(found["processor"]),
            str(found["isa"]),
            int(found["threads"]),
            float(found["bandwidth"]),
            float(found["call"]),
            int(found["widest"]),
            tuple(int(one) for one in found["rows"]),
            {name: tuple(float(one) for one in values) for name, values in found["overlap"].items()},
            {name: tuple(float(one) for one in values) for name, values in found["prepare"].items()},
            {
                name: Curve(tuple(float(one) for one in curve["weight"]), tuple(float(one) for one in curve["scale"]))
                for name, curve in found["kernels"].items()
            },
            {name: float(one) for name, one in found["peaks"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnybitError(f"it is no table of costs ({error!r})") from error


def store(costs: Costs) -> Path:
    """Write a calibration to the user's cache, whole or not at all, and use it from now on."""
    target = path(costs.isa, costs.threads, costs.processor)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"schema": SCHEMA, "anybit": __version__} | as_dict(costs)) + "\n", encoding="utf-8")
    part.replace(target)
    forget()
    return target


def read(file: Path, isa: str, threads: int) -> Costs:
    """A calibration from its file. AnybitError where it is damaged or of something else."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AnybitError(f"it cannot be read ({error})") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or found.get("anybit") != __version__:
        raise AnybitError("it is of another version of anybit")
    costs = from_dict(found)
    if (costs.processor, costs.isa, costs.threads) != (processor(), isa, threads):
        raise AnybitError("it is of another processor, instruction set or number of threads")
    return costs


@functools.cache
def shipped() -> Mapping[str, Costs]:
    """The costs that come with anybit, by instruction set, of machines its authors measured."""
    tables = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return {name: from_dict(table) for name, table in tables["isas"].items()}


@functools.lru_cache(64)
def of(isa: str, threads: int) -> tuple[Costs, bool]:
    """The costs to predict with, and whether they were measured here. A damaged table is refused with a warning."""
    file = path(isa, threads)
    if file.exists():
        try:
            return read(file, isa, threads), True
        except AnybitError as error:
            warnings.warn(
                f"the table of costs {file} is refused: {error}; predictions start from the shipped one "
                "until `anybit doctor --calibrate` measures this machine again",
                RuntimeWarning,
                stacklevel=2,
            )
    one = shipped().get(LIKE.get(isa, isa)) or shipped()["scalar"]
    return one.with_threads(threads), False


def forget() -> None:
    """Look for tables again at the next prediction."""
    global edition
    edition += 1
    of.cache_clear()
