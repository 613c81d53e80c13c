"""`anybit reproduce`: the papers in miniature. The experiments and their verdicts live in `anybit.reproduce`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from anybit.cli import numbers
from anybit.cli.arguments import positive
from anybit.cli.console import Console

app = typer.Typer(
    help="The 62 published systems in miniature: list the verdicts, or run an experiment.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command("list")
def list_systems(json: Json = False) -> None:
    """The 62 systems, each with the verdict of its stored result."""
    from anybit import reproduce

    rows = reproduce.listing()
    console = Console(json)
    console.table(["number", "name", "verdict"], [[row["number"], row["name"], row["verdict"]] for row in rows])
    console.result(rows)


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="Name or number of a system; `anybit reproduce list` shows them.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller version, under three minutes on two cores.")
    ] = False,
    threads: Annotated[int | None, typer.Option("--threads", help="Cores to keep busy; all by default.")] = None,
    json: Json = False,
) -> None:
    """Run an experiment, store its result, and print the figures and what they say of the claim."""
    positive(threads, "--threads")
    from anybit import reproduce

    console = Console(json)
    system = reproduce.find(name)
    console.say(f"{system.number} {system.name}: {system.title}", style="bold")
    console.say(f"claim: {system.claim}")
    with console.progress(system.name) as job:
        result = reproduce.run(name, quick=quick, progress=job, threads=threads)
    console.say()
    console.table(
        ["check", "measured", "", "bound", "passed"],
        [
            [
                check.description,
                f"{check.measured:.4g}",
                check.relation,
                f"{check.bound:.4g}",
                "yes" if check.passed else "no",
            ]
            for check in result.checks
        ],
    )
    console.say(f"verdict: {result.verdict} ({numbers.seconds(result.seconds)})", style="bold")
    console.say(f"stored under {reproduce.results_folder()}")
    console.result(asdict(result))
