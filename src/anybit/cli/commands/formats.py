"""`anybit formats`: the number formats, what they hold, and what they are worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anybit.cli.console import Console
from anybit.errors import FormatError

if TYPE_CHECKING:
    from anybit.formats import ResidualFormat, TensorFormat

app = typer.Typer(help="The number formats: list them, look into one, draw and compare them.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

FEW = 16
"""A format of at most so many bits has its values listed."""
SIDE = 4096
"""Rows and columns of the matrix whose bits a weight are told."""


def described(name: str) -> dict[str, Any]:
    """The properties of an element format."""
    from anybit import formats
    from anybit.formats.measures import dynamic_range

    found = formats.get(name)
    return {
        "name": found.name,
        "bits": found.bits,
        "values": None if found.bits > FEW else len(set(found.values.tolist())),
        "min": found.min,
        "max": found.max,
        "min_positive": found.min_positive,
        "eps": found.eps,
        "has_inf": found.has_inf,
        "has_nan": found.has_nan,
        "dynamic_range_db": None if found.is_complex else dynamic_range(found),
    }


@app.command("list")
def list_formats(json: Json = False) -> None:
    """Every named number format and the short names of scaled ones."""
    from anybit import formats
    from anybit.formats import names

    rows = [described(name) for name in names.TABLE]
    console = Console(json)
    console.table(
        ["format", "bits", "values", "smallest", "largest", "least above 0", "inf", "nan"],
        [
            [
                row["name"],
                row["bits"],
                row["values"] or "–",
                f"{row['min']:g}",
                f"{row['max']:g}",
                f"{row['min_positive']:g}",
                "yes" if row["has_inf"] else "no",
                "yes" if row["has_nan"] else "no",
            ]
            for row in rows
        ],
    )
    console.say()
    console.say(
        "Also any uintN, intNn, [u]eXmY[bBIAS][fn|ieee|none|fnuz|uz], p3109_kKpP{s|u}{e|f}, positN_ES, [u]fixedI_F and levels(a,b,…)."
    )
    console.say("A tensor format is ELEMENT/BLOCK[:SCALE][+z][+t], as in int4/g128+z.")
    console.table(["short name", "means"], list(formats.ALIASES.items()))
    console.result({"formats": rows, "aliases": dict(formats.ALIASES)})


@app.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A number format (e2m1), a tensor format (int4/g128, mxfp4), or two of these (nvfp4~nvfp4)."
        ),
    ],
    json: Json = False,
) -> None:
    """One format: its properties, and all its values where they are few; for tensor formats their cost in bits too."""
    from anybit import formats

    if "~" in name:
        _show_two_levels(formats.ResidualFormat.parse(name), Console(json))
        return
    scaled = "/" in name or name in formats.ALIASES
    spec = formats.TensorFormat.parse(name) if scaled else None
    element = spec.element if spec else formats.TensorFormat.element_named(name)
    properties = described(element.name)
    document: dict[str, Any] = {"element": properties}
    console = Console(json)
    if spec is not None and spec.scale is not None:
        per_weight = _bits_per_weight(spec)
        document |= {
            "spec": str(spec),
            "block": list(spec.block),
            "scale": spec.scale.name,
            "zero": spec.zero is not None,
            "tensor_scale": spec.tensor_scale,
            "bits_per_weight": per_weight,
        }
        rows, cols = (str(side) if side else "all" for side in spec.block)
        console.say(
            f"{spec}: {element.name} codes, a {spec.scale.name} scale for every {rows} × {cols} (rows × columns)"
        )
        console.say(f"{per_weight:.4g} bits a weight in a matrix of {SIDE} × {SIDE}, scales counted")
        console.say()
    console.table(["property", "value"], [[key.replace("_", " "), _digits(value)] for key, value in properties.items()])
    if element.bits <= 8 and not element.is_complex:
        values = sorted(set(element.values.tolist()))
        document["values"] = values
        console.say()
        console.say("values: " + " ".join(f"{value:.6g}" for value in values))
    console.result(document)


def _bits_per_weight(spec: TensorFormat | ResidualFormat) -> float:
    return 8 * spec.nbytes((SIDE, SIDE)) / SIDE**2


def _digits(value: object) -> object:
    return f"{value:.10g}" if isinstance(value, float) else value


def _show_two_levels(spec: ResidualFormat, console: Console) -> None:
    per_weight = _bits_per_weight(spec)
    console.say(f"{spec.main} plus {spec.rest} of what it leaves over")
    console.say(f"{per_weight:.4g} bits a weight in a matrix of {SIDE} × {SIDE}, scales counted")
    console.result({"spec": str(spec), "main": str(spec.main), "rest": str(spec.rest), "bits_per_weight": per_weight})


@app.command("plot")
def plot(
    names: Annotated[list[str], typer.Argument(help="Number formats, one or more (e2m1 int4 nf4).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write, .png or .svg.")] = Path("formats.png"),
    json: Json = False,
) -> None:
    """Draw where the values of formats lie and how far apart they are."""
    from anybit import formats
    from anybit.cli.formats.picture import draw

    console = Console(json)
    draw(out, [formats.get(name) for name in names])
    console.say(f"wrote {out}")
    console.result({"formats": names, "picture": str(out)})


@app.command("compare")
def compare(
    names: Annotated[list[str], typer.Argument(help="Number formats, two or more (e2m1 int4 nf4).")],
    model: Annotated[
        str,
        typer.Option("--model", help="A model whose weights count as real ones: a directory, a bundled name, or none."),
    ] = "anybit-tiny",
    block: Annotated[int, typer.Option("--block", help="Dimensions of the directions that are covered.")] = 16,
    count: Annotated[int, typer.Option("--directions", help="Random directions to measure.")] = 5000,
    json: Json = False,
) -> None:
    """Signal to noise at the best scale, dynamic range, and how well blocks of a format cover directions.

    Signal to noise is in dB, for one scale over all numbers. Angles are in degrees between a random direction and the nearest block of
    values under the best scale; formats of more than 8 bits have none.
    """
    from anybit import formats
    from anybit.cli.arguments import positive
    from anybit.cli.formats.data import distributions, model_or_none
    from anybit.formats.design import coverage
    from anybit.formats.measures import dynamic_range, quality

    positive(block, "--block")
    positive(count, "--directions")
    found = [formats.get(name) for name in names]
    if wrong := [fmt.name for fmt in found if fmt.is_complex]:
        raise FormatError(f"formats of real numbers can be compared; {wrong[0]} is complex")
    console = Console(json)
    data = distributions(model_or_none(model))
    rows: list[dict[str, Any]] = []
    with console.progress("compare") as job:
        for done, fmt in enumerate(found):
            job(fmt.name, done, len(found))
            angle = coverage(fmt, block, count) if fmt.bits <= 8 and len(set(fmt.values.tolist())) > 1 else None
            rows.append(
                {
                    "name": fmt.name,
                    "bits": fmt.bits,
                    "sqnr_db": {name: quality(fmt, x).sqnr for name, x in data.items()},
                    "dynamic_range_db": dynamic_range(fmt),
                    "angle": None if angle is None else {"mean": angle.mean, "p99": angle.p99, "max": angle.max},
                }
            )
    console.table(
        ["format", "bits", *(f"{name} dB" for name in data), "range dB", "mean angle", "99 % angle", "largest"],
        [
            [
                row["name"],
                row["bits"],
                *(f"{value:.2f}" for value in row["sqnr_db"].values()),
                f"{row['dynamic_range_db']:.1f}",
                *(f"{value:.3f}" for value in (row["angle"] or {}).values()),
                *([] if row["angle"] else ["–", "–", "–"]),
            ]
            for row in rows
        ],
    )
    console.say()
    console.say(f"angles in degrees, {count} random directions in {block} dimensions, best scale for each")
    console.result({"formats": rows, "block": block, "directions": count})


@app.command("design")
def design(
    start: Annotated[str, typer.Argument(help="The codebook or format to start from; it must hold zero.")] = "nf4",
    block: Annotated[int, typer.Option("--block", help="Dimensions of the directions to cover.")] = 16,
    emphasis: Annotated[
        str, typer.Option("--emphasis", help="How much the first refinements favour badly covered directions.")
    ] = "5,7,9",
    objective: Annotated[
        str, typer.Option("--objective", help="Weights of the largest, the mean and the 99 % angle.")
    ] = "0,1,1",
    seed: Annotated[int, typer.Option("--seed", help="Seed of directions and search.")] = 3,
    grid: Annotated[int, typer.Option("--grid", help="Round to multiples of 1/grid; 0 leaves values as found.")] = 256,
    quick: Annotated[bool, typer.Option("--quick", help="A short search on few directions.")] = False,
    json: Json = False,
) -> None:
    """Search an alphabet whose blocks cover directions better than those of another; the way in which dp4 was found from nf4.

    Lloyd's iterations under free scales, differential evolution, then Powell's method on fresh directions. Prints the alphabet
    as a codebook name, `levels(…)`, which every command takes, and its angles in degrees beside those of the start and of dp4.
    """
    from anybit import formats
    from anybit.cli.arguments import listed, positive
    from anybit.formats.codebook import codebook
    from anybit.formats.design import Objective, coverage, designed

    positive(block, "--block")
    found = formats.get(start)
    if found.is_complex or found.bits > 8 or 0.0 not in found.values:
        raise FormatError(f"a search starts from real values, zero among them, of at most 8 bits; {start} is not such")
    if len(found.values) < 3 or block < 2:
        raise FormatError(
            f"a search takes three or more values and blocks of two or more; got {start} and --block {block}"
        )
    weights, emphases = listed(objective, "--objective", float), listed(emphasis, "--emphasis", float)
    if len(weights) != 3 or not all(math.isfinite(w) and w >= 0 for w in (*weights, *emphases)):
        raise FormatError(
            "--objective takes three weights (largest, mean, 99 %), and those of --emphasis are finite and not negative too"
        )
    if grid < 0 or (grid and 2 * grid + 1 < 2 * len(found.values)):
        raise FormatError(
            f"--grid {grid} has {2 * grid + 1} points between -1 and 1, too few for {len(found.values)} values; take a finer one, or 0"
        )
    console = Console(json)
    sizes: dict[str, Any] = {"targets": (1024, 2048), "iterations": (4, 2), "population": 2} if quick else {}
    with console.progress("design") as job:
        levels = designed(
            found.values,
            block,
            tuple(emphases),
            Objective(*weights),
            seed=seed,
            grid=grid or None,
            progress=lambda stage, done, total: job(stage, done, total),
            **sizes,
        )
    made, count = codebook(levels.tolist()), 5000 if quick else 40_000
    rows = {}
    beside: dict[str, formats.Format] = {start: found, "dp4": formats.get("dp4"), "found": made}
    for label, fmt in beside.items():
        angle = coverage(fmt, block, count, seed=1)
        rows[label] = {"mean": angle.mean, "p99": angle.p99, "max": angle.max}
    console.say(made.name)
    console.say()
    table = [[label, *(f"{value:.3f}" for value in row.values())] for label, row in rows.items()]
    console.table(["alphabet", "mean angle", "99 % angle", "largest"], table)
    console.say(f"{count} random directions in {block} dimensions, best scale for each")
    console.result({"name": made.name, "levels": levels.tolist(), "angles": rows, "block": block, "directions": count})
