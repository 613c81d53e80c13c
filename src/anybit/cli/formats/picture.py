"""A picture of number formats: where their values lie, how far apart, and how precise that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anybit.errors import AnybitError
from anybit.formats import Format
from anybit.formats.measures import spacings

SUFFIXES = (".png", ".svg")
DENSE = 300
"""More values than this in a row are drawn as a band of thin ticks."""


def draw(path: Path, found: Sequence[Format]) -> None:
    """Write a PNG or SVG (by the suffix): the values of each format scaled to its largest, and below the relative distance of neighbours.

    AnybitError for another suffix and for formats of more than 16 bits. Needs no display.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix not in SUFFIXES:
        raise AnybitError(f"pictures are written as {' or '.join(SUFFIXES)}; got {path.name}")
    if any(fmt.is_complex or fmt.bits > 16 for fmt in found):
        raise AnybitError("formats of real numbers of up to 16 bits can be drawn")
    rows = len(found)
    picture = Figure(figsize=(9, 3.4 + 0.42 * rows), layout="constrained")
    FigureCanvasAgg(picture)
    top, bottom = picture.subplots(2, 1, height_ratios=[0.42 * rows + 0.5, 2.9])
    for row, fmt in enumerate(found):
        colour = f"C{row % 10}"
        grid = np.unique(fmt.values)
        reach = np.abs(grid).max() or 1.0
        y = rows - 1 - row
        thin = len(grid) > DENSE
        top.vlines(
            grid / reach, y - 0.3, y + 0.3, color=colour, linewidth=0.3 if thin else 1.2, alpha=0.5 if thin else 1
        )
        values, steps = spacings(fmt)
        positive = values > 0
        if positive.any():
            relative = steps[positive] / values[positive]
            bottom.step(values[positive] / reach, relative, where="post", color=colour, label=fmt.name, linewidth=1.2)
    top.set(
        yticks=range(rows),
        yticklabels=[fmt.name for fmt in reversed(found)],
        xlim=(-1.05, 1.05),
        ylim=(-0.6, rows - 0.4),
    )
    top.set(xlabel="value / largest value", title="values")
    top.grid(axis="x", alpha=0.25)
    bottom.set(
        xscale="log",
        yscale="log",
        xlabel="value / largest value",
        ylabel="distance / value",
        title="distance to the next value",
    )
    bottom.grid(alpha=0.25)
    if bottom.get_legend_handles_labels()[0]:
        picture.legend(
            *bottom.get_legend_handles_labels(), fontsize="small", ncols=min(rows, 8), loc="outside lower center"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    picture.savefig(part, format=path.suffix[1:], dpi=140, metadata={"Date": None} if path.suffix == ".svg" else None)
    part.replace(path)
