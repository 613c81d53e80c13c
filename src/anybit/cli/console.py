"""Where a command speaks.

For people: text, tables and progress on stdout (progress on stderr). With `--json`: exactly one JSON document on stdout, and
everything for people on stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from anybit.cli import numbers

LEAST_SHARE = 0.05
"""Share of the work that must be done before the time left is worth saying."""

QUIET_SECONDS = 15.0
"""Seconds between two progress lines where stderr is no terminal."""


class Job:
    """The progress of one piece of work, as a function `job(what, done, total)`.

    `done` and `total` may be any numbers of the same unit; the time left is estimated from the share done so far.
    """

    def __init__(self, title: str, bar: Progress | None) -> None:
        self._title, self._bar = title, bar
        self._task = bar.add_task(title, total=None) if bar else None
        self._started = self._spoken = time.monotonic()

    def __call__(self, what: str, done: float, total: float) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._title}: {what}", completed=done, total=total or None)
            return
        now = time.monotonic()
        if now - self._spoken < QUIET_SECONDS or not total:
            return
        self._spoken = now
        left = ""
        if done >= LEAST_SHARE * total:
            left = f", {numbers.seconds((now - self._started) * (total - done) / done)} left"
        print(f"{self._title}: {what}, {100 * done / total:.0f} %{left}", file=sys.stderr, flush=True)


class Console:
    """What a command prints, to the right stream; see the module docstring."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        stream = sys.stderr if as_json else sys.stdout
        # A pipe has no width: give tables the room they need instead of the usual 80 columns.
        width = None if stream.isatty() or "COLUMNS" in os.environ else 140
        self._rich = RichConsole(file=stream, width=width, highlight=False, soft_wrap=False)

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line for people; markup characters in it are printed as they are."""
        self._rich.print(Text(text, style=style or ""), soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        title: str | None = None,
        strong: int | None = None,
    ) -> None:
        """A table for people. A column whose cells all start like numbers stands to the right; `strong` is a row to stress."""
        cells = [[shown(cell) for cell in row] for row in rows]
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        table.show_header = any(columns)
        for index, name in enumerate(columns):
            texts = [row[index] for row in cells if row[index]]
            numeric = bool(texts) and all(text.lstrip("+−-")[:1].isdigit() or text == "–" for text in texts)
            table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
        for index, row in enumerate(cells):
            table.add_row(*[Text(cell) for cell in row], style="bold" if index == strong else None)
        self._rich.print(table)

    def result(self, document: Any) -> None:
        """The JSON document of the command; printed only with `--json`. Numbers that JSON cannot hold become null."""
        if self.as_json:
            print(json.dumps(plain(document), indent=2, ensure_ascii=False), flush=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Job]:
        """A progress bar with the time left on a terminal, else a line now and then."""
        if not sys.stderr.isatty():
            yield Job(title, None)
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=RichConsole(file=sys.stderr),
            transient=True,
        )
        with bar:
            yield Job(title, bar)


def shown(cell: object) -> str:
    """A cell as text: nothing for None, yes and no for truth values."""
    if cell is None:
        return ""
    return ("no", "yes")[cell] if isinstance(cell, bool) else str(cell)


def plain(value: Any) -> Any:
    """The value with every NaN and infinity as None, and tuples as lists: what standard JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
