"""`anybit demo`: what the whole house does, on a small real model, in a few minutes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anybit.cli import numbers
from anybit.cli.arguments import default_text, model_folder, read_text
from anybit.cli.console import Console
from anybit.cli.engines import JsonOption
from anybit.errors import AnybitError

if TYPE_CHECKING:
    from anybit.cli.report import Report


def demo(
    model: Annotated[str, typer.Option("--model", help="Another model directory or bundled model.")] = "anybit-tiny",
    text: Annotated[
        Path | None, typer.Option("--text", help="Text to score; the model's own heldout.txt where it has one.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="Text to calibrate with; the model's own calibration.txt.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Where to write the page.")] = Path("report.html"),
    keep: Annotated[Path | None, typer.Option("--keep", help="Keep the quantized models in this directory.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer versions and fewer tokens.")] = False,
    json: JsonOption = False,
) -> None:
    """Quantize a small model many ways, compare size, quality and speed, and write report.html."""
    folder = model_folder(model)
    text = text or default_text(folder)
    content = read_text(text, "evaluation")
    if calibration is not None:
        read_text(calibration, "calibration")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise AnybitError(f"the report {out} must be a file in a directory that exists")
    from anybit.cli.demo.run import QUICK_SETTINGS, Settings, Texts, run
    from anybit.cli.demo.versions import FULL, QUICK
    from anybit.cli.report import html

    console = Console(json)
    versions = QUICK if quick else FULL
    console.say(f"{folder.name}: {len(versions)} versions are made, scored and timed")
    with tempfile.TemporaryDirectory(prefix="anybit-demo-") as scratch, console.progress("demo") as job:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        report = run(
            folder,
            Texts(text.name, content, calibration),
            keep or Path(scratch),
            versions,
            QUICK_SETTINGS if quick else Settings(),
            job,
        )
    unfinished = out.with_name(out.name + ".part")
    unfinished.write_text(html(report), encoding="utf-8")
    unfinished.replace(out)
    show(console, report)
    console.say(f"report: {out.absolute()}", style="bold")
    console.result(report.as_dict() | {"report": str(out.absolute())})


def show(console: Console, report: Report) -> None:
    """The table and the story."""
    reference = report.reference
    rows = [
        [
            variant.name,
            numbers.perplexity(variant.perplexity),
            "" if variant is reference else numbers.change(variant.perplexity, reference.perplexity),
            numbers.size(variant.bytes),
            f"{variant.bits_per_weight:.2f}",
            numbers.three(variant.prefill or 0),
            numbers.three(variant.decode or 0),
        ]
        for variant in report.variants
    ]
    columns = ["version", "perplexity", "change", "size", "bits a weight", "prefill tok/s", "decode tok/s"]
    strong = next(index for index, variant in enumerate(report.variants) if variant.name == report.best)
    console.table(columns, rows, strong=strong)
    console.say()
    console.say(f"{report.best} tells a story:", style="bold")
    console.say(f"{report.prompt}{report.story}")
    console.say()
    console.say(f"whole run: {report.facts['whole run']}")
