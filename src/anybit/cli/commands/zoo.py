"""`anybit zoo`: small real models of every family. The members and their metrics live in `anybit.zoo`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from anybit.cli import numbers
from anybit.cli.console import Console

app = typer.Typer(
    help="Small real models of every family: list them, or measure one, as it is or quantized.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_members(json: Json = False) -> None:
    """Every member with its size, its metric and whether it is ready.

    Members the project trained come with the package. Those of third parties are read from the folder that ANYBIT_DATA names. A member
    without weights says how to train it.
    """
    from anybit.zoo import MEMBERS

    console = Console(json)
    rows = [
        [m.name, m.family, numbers.count(m.parameters), "–" if m.bar is None else f"{m.bar:g}", m.metric, m.status]
        for m in MEMBERS
    ]
    console.table(["name", "what", "parameters", "value", "metric", "state"], rows)
    console.result([asdict(m) | {"status": m.status} for m in MEMBERS])


@app.command("eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            help="A name that `anybit zoo list` prints, or a directory that `anybit quantize` made from one."
        ),
    ],
    json: Json = False,
) -> None:
    """Measure a member by its metric, beside what the unquantized member reaches.

    \b
    anybit zoo eval resnet20
    anybit quantize resnet20 small --weights int4/g64
    anybit zoo eval small

    Every metric takes less than two minutes. Where the zoo has no such model, `anybit eval` gives the perplexity of any decoder on a text.
    """
    from anybit import zoo

    console = Console(json)
    with console.progress("measuring") as job:
        found = zoo.evaluate(target, job)
    member = found.member
    console.table(
        ["", ""],
        [
            ["member", f"{member.name}, {member.family}"],
            ["metric", f"{member.metric} ({'higher' if member.better == 'high' else 'lower'} is better)"],
            ["value", f"{found.value:.5g}"],
            ["unquantized", f"{member.bar:g}"],
            *([name, f"{value:.4g}"] for name, value in found.more.items()),
            ["size", numbers.size(found.bytes)],
            ["time", numbers.seconds(found.seconds)],
        ],
    )
    console.result(
        {
            "target": target,
            "member": member.name,
            "metric": member.metric,
            "better": member.better,
            "value": found.value,
            "unquantized": member.bar,
            "gap": found.gap,
            "more": dict(found.more),
            "bytes": found.bytes,
            "seconds": found.seconds,
        }
    )
