"""A picture of measured matrix products under the machine's limits: operations a second against operations a byte of weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from anybit.cli.bench.matmul import CLASSES, OURS, Line, bits_class
from anybit.errors import AnybitError

SUFFIXES = (".png", ".svg")
CEILINGS = {
    "int8": "int8 vectors", "bf16": "bf16 vectors", "fp32": "fp32 vectors", "int8_tiles": "int8 tiles", "bf16_tiles": "bf16 tiles",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """What one number of threads gave, and its peaks in operations/s."""

    threads: int
    lines: Sequence[Line]
    peaks: Mapping[str, float]


def check(path: Path) -> None:
    """AnybitError for a suffix that is not drawn."""
    if path.suffix not in SUFFIXES:
        raise AnybitError(f"pictures are written as {' or '.join(SUFFIXES)}; got {path.name}")


def bandwidth(lines: Sequence[Line]) -> float | None:
    """The bytes/s behind the lines' floors; None where none was measured."""
    found = [line.bytes / line.read_floor for line in lines if line.read_floor]
    return median(found) if found else None


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Write a PNG or SVG: one panel a number of threads, ours as filled marks and others as open ones, coloured by class of bits.
    Needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    check(path)
    picture = Figure(figsize=(8.5, 6.2 * len(panels) + 1.0), layout="constrained")
    FigureCanvasAgg(picture)
    classes = sorted({bits_class(line.bits) for panel in panels for line in panel.lines})
    colours = {index: f"C{index}" for index in classes}
    for axes, panel in zip(np.atleast_1d(picture.subplots(len(panels), 1)), panels, strict=True):
        intensities = [line.shape.operations / line.bytes for line in panel.lines]
        reach = np.array([min(intensities) / 1.6, max(intensities) * 1.6])
        rate = bandwidth(panel.lines)
        lowest = 0.7 * min(line.rate for line in panel.lines)
        for kind, peak in panel.peaks.items():
            grid = np.geomspace(reach[0], reach[1], 200)
            ceiling = np.minimum(peak, grid * rate) if rate else np.full_like(grid, peak)
            axes.plot(grid, ceiling, color="0.45", linewidth=1.0)
            axes.annotate(
                f"{CEILINGS[kind]} {peak / 1e9:.0f}", (reach[1], peak), (-2, 2), textcoords="offset points",
                ha="right", fontsize=7, color="0.3",
            )  # fmt: skip
        if rate:
            axes.annotate(
                f"reading {rate / 1e9:.1f} GB/s", (reach[0] * 1.15, reach[0] * 1.15 * rate), (2, 6),
                textcoords="offset points", fontsize=7, color="0.3",
            )  # fmt: skip
        for line, intensity in zip(panel.lines, intensities, strict=True):
            mine, colour = line.engine == OURS, colours[bits_class(line.bits)]
            axes.plot(
                intensity, line.rate, marker="o" if mine else "^", markersize=7 if mine else 5, linestyle="none",
                markerfacecolor=colour if mine else "none", markeredgecolor=colour, alpha=0.9 if mine else 0.6,
                zorder=3 if mine else 2,
            )  # fmt: skip
        axes.set(
            xscale="log", yscale="log", xlim=reach, xlabel="operations a byte of weight", ylabel="operations a second"
        )
        axes.set_ylim(bottom=lowest)
        axes.set_title(f"{panel.threads} thread{'s' * (panel.threads > 1)}", fontsize="medium")
        axes.grid(alpha=0.25, which="both")
    marks = [
        Line2D([], [], linestyle="none", marker="o", color="0.3", label="anybit"),
        Line2D([], [], linestyle="none", marker="^", color="0.3", markerfacecolor="none", label="other libraries"),
    ]
    marks += [
        Line2D([], [], linestyle="none", marker="s", color=colours[index], label=f"{CLASSES[index][1]} bits")
        for index in classes
    ]
    picture.legend(handles=marks, fontsize="small", ncols=min(len(marks), 6), loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    picture.savefig(part, format=path.suffix[1:], dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    part.replace(path)
