"""What the commands that quantize decoders share: a run with progress and its time, and the result as plain values."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from anybit.cli.console import Console

if TYPE_CHECKING:
    from anybit.recipes import Result
    from anybit.recipes.pipeline import Progress

Done = TypeVar("Done")


def timed(console: Console, title: str, run: Callable[[Progress], Done], kept: str) -> tuple[Done, float]:
    """(what run(progress) returns, its seconds). An interruption is told with what is kept, and goes on."""
    try:
        with console.progress(title) as job:
            started = time.perf_counter()

            def told(fraction: float, message: str) -> None:
                job(message, fraction, 1.0)

            done = run(told)
            return done, time.perf_counter() - started
    except KeyboardInterrupt:
        console.say(f"interrupted; the same command goes on from here ({kept})", style="bold")
        raise


def finished(result: Result, seconds: float) -> dict[str, Any]:
    """The result as plain values."""
    return {
        "out": str(result.out),
        "parameters": result.parameters,
        "bytes": result.bytes,
        "bits_per_weight": result.bits_per_weight,
        "formats": dict(result.formats),
        "reports": {name: dict(report) for name, report in result.reports.items()},
        "expected_loss": result.expected_loss,
        "resumed_pieces": result.resumed,
        "seconds": seconds,
    }
