"""`anybit quantize` for members of the zoo that are no decoders: one format for every linear and convolutional layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from anybit.cli import numbers
from anybit.cli.console import Console
from anybit.errors import RecipeError


def is_network(model: str) -> bool:
    """Whether a model argument names a member of the zoo that is no decoder (and no directory)."""
    from anybit.zoo import MEMBERS

    return not Path(model).exists() and any(m.name == model and not m.decoder for m in MEMBERS)


def quantize_network(
    name: str,
    out: Path,
    weights: str | None,
    method: str | None,
    overwrite: bool,
    others: Mapping[str, object],
    json: bool,
) -> None:
    """Quantize and print what came of it. others: options that only decoders have; RecipeError where one was given."""
    given = [option for option, value in others.items() if value]
    if given or weights is None:
        reason = f"{given[0]} is for decoders" if given else "say what the weights become"
        raise RecipeError(f"{reason}; {name} takes --weights FORMAT (such as int8/row) and --method rtn or gptq")
    from anybit.zoo.quantizing import quantize

    console = Console(json)
    with console.progress("quantizing") as job:
        job(name, 0, 1)
        result = quantize(name, out, weights, method, overwrite)
    console.say(
        f"{out}: {result.layers} layers, {numbers.count(result.parameters)} parameters in {weights} by {result.method}, "
        f"{result.bits_per_weight:.3f} bits a weight; {numbers.size(result.bytes)} in all",
        style="bold",
    )
    for note in result.notes:
        console.say(f"note: {note}")
    console.say(f"`anybit zoo eval {out}` measures it")
    console.result({"out": str(out), "member": name, "weights": weights} | asdict(result))
