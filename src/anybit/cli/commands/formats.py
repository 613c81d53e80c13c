"""`anybit formats`: the number formats and what they hold."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from anybit.cli.console import Console

app = typer.Typer(help="The number formats: list them, or look into one.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

FEW = 16
"""A format of at most so many bits has its values listed."""


def described(name: str) -> dict[str, Any]:
    """The properties of an element format."""
    from anybit import formats

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
        "Also any uintN, intNn and eXmY[fn|ieee|none]. A tensor format is ELEMENT/BLOCK[:SCALE][+z][+t], as in int4/g128+z."
    )
    console.table(["short name", "means"], list(formats.ALIASES.items()))
    console.result({"formats": rows, "aliases": dict(formats.ALIASES)})


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A number format (e2m1) or a tensor format (int4/g128, mxfp4).")],
    json: Json = False,
) -> None:
    """One format: its properties, and all its values where they are few; for a tensor format its cost in bits too."""
    from anybit import formats

    spec = formats.TensorFormat.parse(name)
    element = spec.element
    properties = described(element.name)
    document: dict[str, Any] = {"element": properties}
    console = Console(json)
    if spec.scale is not None:
        shape = (4096, 4096)
        per_weight = 8 * spec.nbytes(shape) / (shape[0] * shape[1])
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
        console.say(f"{per_weight:.4g} bits a weight in a matrix of {shape[0]} × {shape[1]}, scales counted")
        console.say()
    console.table(["property", "value"], [[key.replace("_", " "), value] for key, value in properties.items()])
    if element.bits <= 8:
        values = sorted(set(element.values.tolist()))
        document["values"] = values
        console.say()
        console.say("values: " + " ".join(f"{value:.6g}" for value in values))
    console.result(document)
