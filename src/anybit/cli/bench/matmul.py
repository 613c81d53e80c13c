"""Matrix products of every format against other libraries and the machine's limits, all in one interleaved run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anybit.cli import engines
from anybit.cli.bench.limits import COPY_BYTES, FEWEST_COPIES
from anybit.cli.bench.rounds import Cold, Progress, Sample, interleave, ratio, silent
from anybit.errors import AnybitError

if TYPE_CHECKING:
    import torch

OURS = "anybit"
READ = "reading memory"
PEAK = "peak of {} arithmetic"
CLASSES = (
    (1.8, "1–1.7"), (2.4, "2"), (2.8, "2.6"), (3.6, "3.4"), (4.6, "4–4.5"), (6.7, "5–6.6"), (9.0, "8"), (16.5, "16"), (64.0, "32"),
)  # fmt: skip
"""Classes of bits a weight, everything stored counted: the largest number that belongs to one, and its name."""
HOPELESS = 4.0
"""So many times as long as the fastest with no more bits: a library that takes longer in two tries is not measured again."""
BESIDE, LENGTHY = 5.0, 0.25
"""What takes so many times as long as is hopeless, and so many seconds, while all libraries prepare at once, is not tried alone."""
FROM_ROWS = 16
"""Rows from which on a format that was hopeless is so with more rows, too."""
WRONG = 0.9
"""Relative error of a product from which on a library is taken to compute something else."""


def bits_class(bits: float) -> int:
    """The index in `CLASSES` of so many bits a weight."""
    return next(index for index, (most, _) in enumerate(CLASSES) if bits <= most)


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
class Entrant:
    """One contestant of a shape. bytes: of the weight as stored.  arithmetic: int8, bf16 or fp32, of the products.
    sample: seconds a call, measured now.  act: the format that x is rounded to, of ours."""

    engine: str
    name: str
    bytes: int
    arithmetic: str
    sample: Callable[[], float]
    act: str | None = None


@dataclass(frozen=True)
class Line:
    """One entrant of one shape, measured. read_floor and compute_floor: seconds of reading the weight at the read bandwidth, and of its
    operations at the peak of the vector instructions for its arithmetic (tile units go beyond); None where that was not measured."""

    shape: Shape
    engine: str
    name: str
    bytes: int
    arithmetic: str
    seconds: Sample
    read_floor: float | None = None
    compute_floor: float | None = None
    read_share: float | None = None
    compute_share: float | None = None
    """The part of the peak that was reached."""
    over_fp32: float | None = None
    over_bf16: float | None = None
    best_peer: tuple[str, float] | None = None
    """The fastest of other engines with weights of this class of bits or fewer, and its seconds."""
    over_peer: float | None = None
    act: str | None = None

    @property
    def bits(self) -> float:
        """Bits a weight, everything stored counted."""
        return 8 * self.bytes / (self.shape.n * self.shape.k)

    @property
    def bandwidth(self) -> float:
        """Weight bytes a second."""
        return self.bytes / self.seconds.median

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.shape.operations / self.seconds.median

    @property
    def floor(self) -> float | None:
        """Seconds that no kernel on vector instructions goes below: the longer of the two floors."""
        return max((one for one in (self.read_floor, self.compute_floor) if one is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; seconds, bytes/s and operations/s, and microseconds where the name says us."""
        return {
            "m": self.shape.m,
            "n": self.shape.n,
            "k": self.shape.k,
            "engine": self.engine,
            "format": self.name,
            "bits": self.bits,
            "class": CLASSES[bits_class(self.bits)][1],
            "bytes": self.bytes,
            "arithmetic": self.arithmetic,
            "us": self.seconds.median * 1e6,
            "spread": self.seconds.spread,
            "floor_us": None if self.floor is None else self.floor * 1e6,
            "read_floor_us": None if self.read_floor is None else self.read_floor * 1e6,
            "compute_floor_us": None if self.compute_floor is None else self.compute_floor * 1e6,
            "best_peer": None if self.best_peer is None else self.best_peer[0],
            "best_peer_us": None if self.best_peer is None else self.best_peer[1] * 1e6,
            "over_best_peer": self.over_peer,
            "seconds": self.seconds.as_dict(),
            "bytes_per_s": self.bandwidth,
            "operations_per_s": self.rate,
            "share_of_read_bandwidth": self.read_share,
            "share_of_peak": self.compute_share,
            "over_torch_fp32": self.over_fp32,
            "over_torch_bf16": self.over_bf16,
            "act": self.act,
        }


@dataclass(frozen=True)
class Setting:
    """How to measure. before: called ahead of each sample; clears the caches, or lets the threads of others fall asleep.  read: bytes/s of
    reading memory, and peaks: operations/s of int8, bf16 and fp32 arithmetic, measured in turns with the products, for what a shared
    machine gives changes; empty for no limit."""

    rounds: int
    before: Callable[[], object] | None = None
    read: Callable[[], float] | None = None
    peaks: Mapping[str, Callable[[], float]] = field(default_factory=dict)


def copies(stored: int, most: int, cold: bool) -> int:
    """How many copies of a weight of `stored` bytes are multiplied in turn, the first of them uncounted; 1 where it may stay in cache."""
    return min(max(FEWEST_COPIES, COPY_BYTES // max(stored, 1)), most) if cold else 1


@dataclass(frozen=True)
class Form:
    """A weight of ours in one format, or torch's. copies: of the weight, functions of x [m, k] that multiply. act: the format that x is
    rounded to, of ours."""

    engine: str
    name: str
    bytes: int
    arithmetic: str
    copies: Sequence[Callable[[torch.Tensor], object]]
    act: str | None = None


class Ours:
    """anybit with every format, and torch in this process in fp32 and bf16; weights of the last n and k are kept.

    specs: formats of weights; after @ those of their activations, where they are not `act`. most, cold: of `copies`.
    """

    def __init__(self, specs: Sequence[str], act: str | None, most: int, cold: bool) -> None:
        self.specs, self.act = specs, act
        self.copies = partial(copies, most=most, cold=cold)
        self.sides: tuple[int, int] = (0, 0)
        self.forms: list[Form] = []

    def entrants(self, shape: Shape) -> list[Entrant]:
        """All formats with this shape."""
        import torch

        self.prepare(shape.n, shape.k)
        x = torch.randn(shape.m, shape.k, generator=torch.Generator().manual_seed(1))
        made = []
        for form in self.forms:
            rows = x.to(torch.bfloat16) if form.name == "torch bf16" else x
            sample = Cold([partial(product, rows) for product in form.copies])
            made.append(Entrant(form.engine, form.name, form.bytes, form.arithmetic, sample, form.act))
        return made

    def prepare(self, n: int, k: int) -> None:
        """Weights of n rows and k columns."""
        import torch

        if self.sides == (n, k):
            return
        self.forms, self.sides = [], (0, 0)  # before memory is taken for others
        weight = torch.randn(n, k, generator=torch.Generator().manual_seed(0)) / k**0.5
        self.forms = [form for label in self.specs for form in self._packed(label, weight)]
        for name, dtype in (("torch fp32", torch.float32), ("torch bf16", torch.bfloat16)):
            matrix = weight.to(dtype)
            size = int(matrix.nbytes)
            clones = [partial(torch.nn.functional.linear, weight=matrix.clone()) for _ in range(self.copies(size))]
            self.forms.append(Form("torch", name, size, name.split()[1], clones))
        self.sides = n, k

    def _packed(self, label: str, weight: torch.Tensor) -> Iterator[Form]:
        import torch

        from anybit import ops
        from anybit.formats import TensorFormat
        from anybit.tensors import quantize

        spec, _, own = label.partition("@")
        act = engines.activation(own) if own else self.act
        fmt = TensorFormat.parse(spec)
        w = (
            quantize(weight, fmt)
            if fmt.scale is not None
            else weight.to(torch.bfloat16 if spec == "bf16" else torch.float32)
        )
        size = int(w.nbytes)
        rounded = TensorFormat.parse(act) if act and fmt.scale is not None else None
        for levels in ops.LEVELS:
            packed = [ops.prepack(w, levels=levels) for _ in range(self.copies(size))]
            integer = rounded is not None and rounded.element.name == "int8" and packed[0].integer
            arithmetic = "int8" if integer else "bf16" if str(rounded) == "bf16" else "fp32"
            named = f" by {own}" if own and (rounded is not None or act is None) else ""
            name = f"{fmt}{'' if levels == 'exact' else ' int8 levels'}{named}"
            products = [partial(ops.matmul, w=one, act=rounded) for one in packed]
            yield Form(OURS, name, size, arithmetic, products, str(rounded) if rounded else None)
            if not packed[0].element.startswith("word"):
                break  # there are no others


class Library(Protocol):
    """Another library: answers {"seconds", "bytes", "arithmetic", "error"} or {"lacks"}; see benchmarks/README.md."""

    @property
    def about(self) -> dict[str, Any]: ...

    def ask(self, request: str) -> dict[str, Any]: ...


def theirs(
    shape: Shape,
    libraries: Mapping[str, Library],
    hopeless: Sequence[str] = (),
    before: Callable[[], object] | None = None,
) -> tuple[list[Entrant], dict[str, str], list[str]]:
    """What the libraries can do of a shape; for the rest why not; and those of them that are hopelessly slow.

    They prepare their weights here, all libraries at a time, and are then tried one by one, `before` called ahead of each; who is too slow
    is tried again. hopeless: what is not even tried, `FROM_ROWS` permitting.
    """
    skipped = set(hopeless) if shape.m >= FROM_ROWS else set()

    def request(fmt: str) -> str:
        return json.dumps({"m": shape.m, "n": shape.n, "k": shape.k, "format": fmt})

    def prepare(name: str) -> list[tuple[str, dict[str, Any]]]:
        library = libraries[name]
        wanted = [fmt for fmt in library.about["formats"] if f"{name} {fmt}" not in skipped]
        try:
            return [(fmt, library.ask(request(fmt))) for fmt in wanted]
        except RuntimeError as error:  # it died, and what it prepared with it
            return [(fmt, {"lacks": str(error)}) for fmt in wanted]

    def sampler(library: Library, fmt: str) -> Callable[[], float]:
        return lambda: float(library.ask(request(fmt))["seconds"])

    able: list[Entrant] = []
    prepared: dict[str, float] = {}
    lacks = dict.fromkeys(sorted(skipped), "hopelessly slow with fewer rows already")
    with ThreadPoolExecutor(max(1, len(libraries))) as pool:
        for name, answers in zip(libraries, pool.map(prepare, libraries), strict=True):
            for fmt, answer in answers:
                label = f"{name} {fmt}"
                if "lacks" in answer:
                    lacks[label] = str(answer["lacks"])
                elif not float(answer["error"]) <= WRONG:
                    lacks[label] = f"its product is off by {answer['error']:.2g} of its size"
                else:
                    entrant = Entrant(name, label, answer["bytes"], answer["arithmetic"], sampler(libraries[name], fmt))
                    able.append(entrant)
                    prepared[label] = float(answer["seconds"])

    def times(one: Entrant, tried: Mapping[str, float]) -> float:
        fastest = min(tried[other.name] for other in able if other.bytes <= one.bytes and other.name in tried)
        return tried[one.name] / fastest

    def take(those: Sequence[Entrant]) -> dict[str, float]:
        once = interleave({one.name: one.sample for one in those}, 1, before=before)
        return {name: sample.least for name, sample in once.items()}

    tried = take([one for one in able if prepared[one.name] < LENGTHY or times(one, prepared) <= BESIDE * HOPELESS])
    again = take([one for one in able if one.name in tried and times(one, tried) > HOPELESS])
    tried |= {name: min(seconds, tried[name]) for name, seconds in again.items()}
    found, slow = [], []
    for one in able:
        taken = tried if one.name in tried else prepared
        if (behind := times(one, taken)) > HOPELESS:
            slow.append(one.name)
            beside = "" if one.name in tried else " while all prepare"
            lacks[one.name] = (
                f"{1e6 * taken[one.name]:.0f} us, {behind:.0f} times as long as another with no more bits{beside}"
            )
        else:
            found.append(one)
    return found, lacks, [*sorted(skipped), *slow] if shape.m >= FROM_ROWS else []


def measure(shape: Shape, entrants: Sequence[Entrant], setting: Setting, progress: Progress = silent) -> list[Line]:
    """All entrants of one shape, interleaved."""
    samplers = {one.name: one.sample for one in entrants}
    used = {one.arithmetic for one in entrants}
    limits = {PEAK.format(kind): probe for kind, probe in setting.peaks.items() if kind in used}
    if setting.read:
        limits[READ] = setting.read
    found = interleave(samplers | limits, setting.rounds, progress, before=setting.before)
    bandwidth = found.get(READ)
    lines = []
    for one in entrants:
        seconds, peak = found[one.name], found.get(PEAK.format(one.arithmetic))
        best = best_peer(one, entrants, found, shape) if one.engine == OURS else None
        lines.append(
            Line(
                shape,
                one.engine,
                one.name,
                one.bytes,
                one.arithmetic,
                seconds,
                one.bytes / bandwidth.median if bandwidth else None,
                shape.operations / peak.median if peak else None,
                _share(one.bytes, seconds, bandwidth),
                _share(shape.operations, seconds, peak),
                ratio(found["torch fp32"], seconds) if "torch fp32" in found else None,
                ratio(found["torch bf16"], seconds) if "torch bf16" in found else None,
                (best, found[best].median) if best else None,
                ratio(found[best], seconds) if best else None,
                one.act,
            )
        )
    return lines


def _share(amount: float, seconds: Sample, limit: Sample | None) -> float | None:
    """The part of a limit, amounts a second measured in the same rounds, that doing this amount reached."""
    return None if limit is None else ratio(Sample(tuple(amount / s for s in seconds.values)), limit)


def best_peer(mine: Entrant, entrants: Sequence[Entrant], found: Mapping[str, Sample], shape: Shape) -> str | None:
    """The fastest entrant of another engine with weights of at most the same class of bits; None where there is none."""

    def rank(one: Entrant) -> int:
        return bits_class(8 * one.bytes / (shape.n * shape.k))

    rivals = [one.name for one in entrants if one.engine != mine.engine and rank(one) <= rank(mine)]
    return min(rivals, key=lambda name: found[name].median, default=None)
