"""Quality at equal bytes: one model, one text, one accounting for ours and for other libraries' quantized models.

Everything is compared with the unquantized model in float32 on the same windows: KL divergence and perplexity against bits a weight, all
stored bytes counted over the model's parameters.  Others run in processes of their own (`benchmarks/peers/run_quality.py`) and hand back
bytes and logits; the figures are computed here.  They are given the same calibration windows where they can use them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from anybit.cli.bench.peers import Peer, interpreter
from anybit.cli.bench.rounds import Progress, silent
from anybit.errors import AnybitError
from anybit.recipes import items
from anybit.recipes.inputs import Inputs
from anybit.recipes.walk import Held, Walk
from anybit.reproduce.subject import Subject
from anybit.zoo.data import checkout

LIBRARIES: Mapping[str, str] = {
    **dict.fromkeys(("llama.cpp", "torchao", "quanto", "hqq", "bitsandbytes"), ".venv-peers"),
    **dict.fromkeys(("auto-round", "gptqmodel", "llm-compressor"), ".venv-peers-calibrated"),
}
"""Others, and the environment of a checkout that has them."""
OURS = "anybit"
SCRIPT = "run_quality.py"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "rtn": {"method": "rtn"},
    "gptq": {"method": "gptq"},
    "gradient_ptq": {"method": "gradient_ptq"},
    "gradient_ptq rotated": {"method": "gradient_ptq", "transforms": ["rotate_inputs"]},
    "distill": {"method": "distill"},
}
"""Ours, each under every budget."""


@dataclass(frozen=True)
class Point:
    """One quantized model. bits: a weight, all bytes counted; kl in nats a token with its standard error; agreement: share of equal first
    choices."""

    library: str
    format: str
    bits: float
    perplexity: float
    kl: float
    stderr: float
    agreement: float


@dataclass(frozen=True)
class Compared:
    """perplexity: of the model itself.  absent: library or format -> why it is not among the points."""

    model: str
    tokens: int
    perplexity: float
    points: tuple[Point, ...]
    versions: Mapping[str, str]
    absent: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "verdicts": [asdict(each) for each in verdicts(self.points)]}


@dataclass(frozen=True)
class Verdict:
    """A point of another library against ours of no more bits: the one of least divergence; ratio of the divergences, ours to theirs.
    ours is None where no point of ours is as small."""

    theirs: Point
    ours: Point | None
    ratio: float | None


def verdicts(points: Sequence[Point]) -> list[Verdict]:
    """One for every point of the others that no other of its library beats at as many bits or fewer."""
    found = []
    for theirs in points:
        if theirs.library == OURS:
            continue
        rivals = [p for p in points if p.library == theirs.library and p.bits <= theirs.bits and p.kl < theirs.kl]
        if rivals:
            continue
        able = [p for p in points if p.library == OURS and p.bits <= theirs.bits]
        ours = min(able, key=lambda p: p.kl, default=None)
        found.append(Verdict(theirs, ours, None if ours is None or theirs.kl == 0 else ours.kl / theirs.kl))
    return sorted(found, key=lambda each: -each.theirs.bits)


def merged(points: Sequence[Point]) -> list[Point]:
    """Formats of one library that came to the same bytes and the same logits (a library fell back to another format) as one point."""
    same: dict[tuple[str, float, float, float], list[Point]] = {}
    for point in points:
        same.setdefault((point.library, point.bits, point.kl, point.perplexity), []).append(point)
    return [replace(those[0], format=", ".join(p.format for p in those)) for those in same.values()]


def reasons(absent: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason -> what is absent for it."""
    found: dict[str, list[str]] = {}
    for what, why in absent.items():
        found.setdefault(why, []).append(what)
    return found


def selected(text: str | None) -> tuple[str, ...]:
    """The libraries asked for: `all`, or names with commas; none where None. AnybitError for an unknown one."""
    if text is None:
        return ()
    names = tuple(LIBRARIES) if text == "all" else tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in names if name not in LIBRARIES]
    if unknown:
        raise AnybitError(f"unknown peer {unknown[0]!r}; there are {', '.join(LIBRARIES)}, or all")
    return names


def selected_methods(text: str | None) -> tuple[str, ...]:
    """The methods of METHODS asked for, names with commas; all where None. AnybitError for an unknown one."""
    names = tuple(METHODS) if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [name for name in names if name not in METHODS]:
        raise AnybitError(f"unknown method {unknown[0]!r}; there are {', '.join(METHODS)}")
    return names


def command(library: str) -> list[str]:
    """Interpreter and script; AnybitError outside a checkout, and where `make peers` has not run."""
    return [*interpreter(library, SCRIPT, False, checkout(), LIBRARIES[library]), library]


class Given:
    """Logits of known windows as an executor."""

    def __init__(self, windows: Sequence[Sequence[int]], logits: Tensor) -> None:
        """logits: [tokens of all windows but their last ones, vocabulary]. AnybitError where there are more or fewer."""
        lengths = [len(window) - 1 for window in windows]
        if sum(lengths) != logits.shape[0]:
            raise AnybitError(f"{logits.shape[0]} rows of logits for {sum(lengths)} tokens")
        self._of = {tuple(w[:-1]): part for w, part in zip(windows, logits.split(lengths), strict=True)}

    def reset(self) -> None:
        """There is nothing to forget."""

    def forward(self, ids: Sequence[int], logits: Literal["last", "all"] = "last") -> Tensor:
        """The rows of a window."""
        rows = self._of[tuple(ids)]
        return rows if logits == "all" else rows[-1:]


def compare(
    subject: Subject,
    libraries: Sequence[str],
    budgets: Sequence[float],
    work: Path,
    threads: int,
    job: Progress = silent,
    methods: Sequence[str] | None = None,
) -> Compared:
    """Ours, `methods` of METHODS under every budget that is possible for the model, and every format of the libraries; models of ours
    and figures of theirs stay in `work`."""
    name = subject.folder.name
    work.mkdir(parents=True, exist_ok=True)
    points: list[Point] = []
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}
    for library in libraries:
        measured: list[Point] = []
        try:
            for point in _theirs(subject, library, work, threads, versions, absent, job):
                measured.append(point)
        except (AnybitError, RuntimeError) as error:
            absent[library] = str(error)
        points += merged(measured)
    methods = tuple(METHODS) if methods is None else methods
    total = len(methods) * len(budgets)
    for number, (label, bits) in enumerate((method, budget) for method in methods for budget in budgets):
        job(f"{name}: {label}, {bits:g} bits", number, total)
        try:
            made = subject.quantized({**METHODS[label], "bits": bits}, work / "ours")
        except AnybitError as error:
            absent[f"{OURS} {label}, {bits:g} bits"] = str(error)
            continue
        score = subject.score(made.plan, made.weights)
        points.append(_point(OURS, f"{label}, {bits:g} bits", made.bits_per_weight, score))
    tokens = sum(len(window) - 1 for window in subject.windows)
    return Compared(name, tokens, subject.perplexity(), tuple(points), versions, absent)


def _theirs(
    subject: Subject,
    library: str,
    work: Path,
    threads: int,
    versions: dict[str, str],
    absent: dict[str, str],
    job: Progress,
) -> Iterator[Point]:
    windows, calibration, importance = work / "windows.json", work / "calibration.json", work / "importance.npz"
    windows.write_text(json.dumps(subject.windows), encoding="utf-8")
    shown = subject.calibration_windows()
    calibration.write_text(json.dumps([window.tolist() for window in shown]), encoding="utf-8")
    if not importance.exists():
        np.savez(importance, **_importance(subject, shown))  # type: ignore[arg-type]
    files = {"windows": windows, "calibration": calibration, "importance": importance, "work": work}
    ask = {"model": str(subject.folder), **{what: str(path) for what, path in files.items()}}
    with Peer(library, command(library), {**ask, "threads": threads}) as peer:
        if "lacks" in peer.about:
            raise AnybitError(str(peer.about["lacks"]))
        versions[library] = str(peer.about["version"])
        formats: list[str] = peer.about["formats"]
        out = work / "logits.npy"
        mark = subject.fingerprint() + library + versions[library]
        for number, spec in enumerate(formats):
            kept = work / "theirs" / f"{hashlib.sha256((mark + spec).encode()).hexdigest()[:20]}.json"
            if kept.exists():
                yield Point(**json.loads(kept.read_text(encoding="utf-8")))
                continue
            job(f"{subject.folder.name}: {library} {spec}", number, len(formats))
            answer = peer.ask(json.dumps({"format": spec, "out": str(out)}))
            if "lacks" in answer:
                absent[f"{library} {spec}"] = str(answer["lacks"])
                continue
            logits = torch.from_numpy(np.load(out))
            if not bool(torch.isfinite(logits).all()):
                absent[f"{library} {spec}"] = "its logits hold NaN or infinity"
                continue
            given = Given(subject.windows, logits)
            point = _point(library, spec, 8 * answer["bytes"] / subject.model.parameters, subject.judged(given))
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(json.dumps(asdict(point)), encoding="utf-8")
            out.unlink()
            yield point


def _point(library: str, spec: str, bits: float, score: Mapping[str, float]) -> Point:
    return Point(library, spec, bits, score["perplexity"], score["kl"], score["stderr"], score["agreement"])


def _importance(subject: Subject, windows: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """The mean square of every input of every linear layer on the windows: what llama.cpp calls an importance matrix."""
    model = subject.model
    linear = [item for item in items.quantizable(model) if item.role == "linear"]
    inputs = Inputs(model.plan, linear)
    walk = Walk(model.plan, list(windows))
    walk.visit(len(model.plan.ops), Held(model.weights), inputs)
    return {item.name: inputs.of(item).second_moment.float().numpy() for item in linear}


def check_picture(path: Path) -> None:
    """AnybitError for a suffix that is not drawn."""
    if path.suffix not in (".png", ".svg"):
        raise AnybitError(f"pictures are written as .png or .svg; got {path.name}")


def draw(path: Path, compared: Sequence[Compared]) -> None:
    """Write a PNG or SVG: a row a model, KL divergence and perplexity against bits a weight; a line a library. Needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_picture(path)
    picture = Figure(figsize=(11, 4.6 * len(compared)), layout="constrained")
    FigureCanvasAgg(picture)
    panels = np.atleast_2d(picture.subplots(len(compared), 2))
    for row, each in zip(panels, compared, strict=True):
        for axes, what in zip(row, ("kl", "perplexity"), strict=True):
            for number, (library, points) in enumerate(_lines(each.points)):
                shown = [p for p in points if 0 < getattr(p, what) < math.inf]
                axes.plot(
                    [p.bits for p in shown],
                    [getattr(p, what) for p in shown],
                    marker="o" if library == OURS else "^",
                    linewidth=2.2 if library == OURS else 1.0,
                    color="black" if library == OURS else f"C{number}",
                    label=library,
                    zorder=3 if library == OURS else 2,
                )
            axes.set(
                yscale="log", xlabel="bits a weight, all bytes counted", title=f"{each.model}, {each.tokens:,} tokens"
            )
            axes.set_ylabel("KL divergence, nats a token" if what == "kl" else "perplexity")
            if what == "perplexity":
                axes.axhline(each.perplexity, color="0.5", linestyle=":", label="unquantized")
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
    picture.savefig(path, dpi=130)


def _lines(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """The best of each library by bits: points that none of its own beats at as many bits or fewer, ascending."""
    found = []
    for library in dict.fromkeys(p.library for p in points):
        line: list[Point] = []
        for point in sorted((p for p in points if p.library == library), key=lambda p: (p.bits, p.kl)):
            if not line or point.kl < line[-1].kl:
                line.append(point)
        found.append((library, line))
    return found
