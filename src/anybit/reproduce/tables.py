"""How studies are shown: Pareto fronts, Markdown tables and PNG plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anybit.errors import AnybitError
from anybit.reproduce.bootstrap import Interval
from anybit.reproduce.study import Results

Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Point:
    """A named point of a trade-off; both coordinates are better when smaller."""

    name: str
    cost: float
    loss: float


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats or equals in both coordinates while beating it in one, by rising cost.

    Of points equal in both coordinates all stay.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.loss)):
        if not front or point.loss < front[-1].loss or (point.cost, point.loss) == (front[-1].cost, front[-1].loss):
            front.append(point)
    return front


def markdown(header: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 4) -> str:
    """A Markdown table; numbers with `digits` significant digits and right-aligned, intervals as `value [low, high]`.

    Raises AnybitError where a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise AnybitError(f"a table row must have {len(header)} cells; got {len(row)}: {list(row)}")
    numeric = [bool(rows) and all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]
    lines = [list(header), ["--:" if right else "---" for right in numeric]]
    lines += [[_text(cell, digits) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _text(cell: Cell, digits: int) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Interval):
        return f"{cell.value:.{digits}g} [{cell.low:.{digits}g}, {cell.high:.{digits}g}]"
    if isinstance(cell, float):
        return f"{cell:.{digits}g}"
    return str(cell).replace("|", "\\|").replace("\n", " ")


def study_table(results: Results, metrics: Sequence[str], digits: int = 4) -> str:
    """One row a condition: the median of each metric over seeds with its 95 % interval."""
    rows: list[list[Cell]] = [[c, *(results.interval(c, m) for m in metrics)] for c in results.conditions]
    return markdown(["condition", *metrics], rows, digits)


def pareto_table(points: Sequence[Point], cost: str, loss: str, digits: int = 4) -> str:
    """All points by rising cost, those on the front marked."""
    front = pareto(points)
    rows: list[list[Cell]] = [
        [p.name, p.cost, p.loss, "yes" if p in front else ""] for p in sorted(points, key=lambda p: (p.cost, p.loss))
    ]
    return markdown(["", cost, loss, "on the front"], rows, digits)


def plot(
    path: Path,
    curves: Mapping[str, Sequence[tuple[float, Interval]]],
    x: str,
    y: str,
    title: str = "",
    log_y: bool = False,
) -> None:
    """Write a PNG: one line a curve through (x, interval) points, the intervals as bars. Needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not any(curves.values()):
        raise AnybitError("there is nothing to plot: no curve has a point")
    picture = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots()
    for name, points in curves.items():
        if points:
            across, middle = [at for at, _ in points], [i.value for _, i in points]
            # A median of few values may leave its own BCa interval; a bar cannot be negative.
            below = [max(i.value - i.low, 0.0) for _, i in points]
            above = [max(i.high - i.value, 0.0) for _, i in points]
            axes.errorbar(across, middle, yerr=[below, above], marker="o", markersize=4, capsize=3, label=name)
    axes.set(xlabel=x, ylabel=y, title=title)
    if log_y:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    picture.savefig(part, format="png", dpi=130)
    part.replace(path)
