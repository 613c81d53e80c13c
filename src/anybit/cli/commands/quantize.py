"""`anybit quantize`: a smaller model from a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anybit.cli import numbers
from anybit.cli.arguments import model_folder
from anybit.cli.commands.quantize_auto import quantize_auto
from anybit.cli.commands.quantize_network import is_network, quantize_network
from anybit.cli.console import Console
from anybit.cli.engines import JsonOption
from anybit.cli.quantizing import finished, timed
from anybit.cli.recipe_options import recipe as to_recipe
from anybit.errors import RecipeError

if TYPE_CHECKING:
    from anybit.recipes import Preflight

AUTO = "auto"
METHODS = (
    "gptq (the default)",
    "gradient_ptq",
    "distill",
    "rtn",
    "awq",
    "smoothquant",
    "llm_int8",
    "arcquant",
    "batquant",
)
METHODS_HELP = ", ".join((*METHODS, "block_quant_outliers", "nf4", "matgptq", "matgptq_distill", "itq3_s"))
TRANSFORMS_HELP = "smooth, awq, permute, split, residual, sort_keys, hadamard, block_affine, rotate_inputs"
"""Spelled out, as the tables would load torch before the help is printed; a test compares."""


def quantize(
    model: Annotated[str, typer.Argument(help="A model directory, or the name of a member of the zoo.")],
    out: Annotated[Path, typer.Argument(help="The directory to write.")],
    weights: Annotated[
        str | None, typer.Option("--weights", help="One format for all layers, such as int4/g128.")
    ] = None,
    bits: Annotated[
        float | None,
        typer.Option("--bits", help="A budget: average bits a weight over everything stored, such as 3.5."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="A budget as the size of everything stored, such as 2.5MB, instead of --bits."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"{METHODS_HELP}; auto tries several on a sample and keeps the best.",
        ),
    ] = None,
    scale_rule: Annotated[
        str | None,
        typer.Option(
            "--scale-rule",
            help="How scales are found: mse (a search, the default), exact (least error, slower), absmax, four_over_six (NVFP4), gaussian.",
        ),
    ] = None,
    transforms: Annotated[
        str | None,
        typer.Option(
            "--transforms",
            help=f"Rewrites before quantization, in order, by commas: {TRANSFORMS_HELP}; none for none.",
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            "--embeddings", help="Format of embedding and output matrix; int8/row or the budget's by default."
        ),
    ] = None,
    activations: Annotated[
        str | None,
        typer.Option(
            "--activations",
            help="int8/static keeps a scale of each layer's inputs, measured on the calibration text, by which the model is then run; "
            "left out, scales are found while it runs.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A recipe file (YAML or JSON) instead of these options.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", help="A text like the ones the model will read; the model's own by default."),
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="Windows of calibration text.")] = None,
    length: Annotated[int | None, typer.Option("--length", help="Tokens of a window.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    json: JsonOption = False,
) -> None:
    """Quantize a model, to one format or under a budget of bits; an interrupted run goes on when it is started again.

    Members of the zoo that are no decoders (`anybit zoo list`) take --weights, --overwrite and --method
    (gptq where they have data to calibrate on).
    """
    if is_network(model):
        if method == AUTO:
            raise RecipeError(f"--method {AUTO} is for decoders; {model} takes the name of a method")
        others = {
            "--bits": bits,
            "--size": size,
            "--embeddings": embeddings,
            "--activations": activations,
            "--recipe": recipe,
            "--calibration": calibration,
        }
        others |= {"--scale-rule": scale_rule, "--transforms": transforms}
        others |= {"--samples": samples, "--length": length, "--dry-run": dry_run}
        quantize_network(model, out, weights, method, overwrite, others, json)
        return
    if method == AUTO and recipe is not None:
        raise RecipeError(
            f"--method {AUTO} and --recipe cannot stand together; give the budget with --bits, --size or --weights"
        )
    folder = model_folder(model) if size is not None else None
    bits = bits if size is None or folder is None else bits_of(folder, size, bits, weights, recipe)
    named = None if method == AUTO else method
    wanted = to_recipe(
        recipe, weights, bits, named, embeddings, calibration, samples, length, scale_rule, transforms, activations
    )
    folder = folder or model_folder(model)
    from anybit import recipes

    console = Console(json)
    if method == AUTO:
        quantize_auto(console, folder, wanted, out, overwrite, dry_run)
        return
    plan = recipes.preflight(folder, wanted, out, overwrite=overwrite)
    announce(console, plan)
    if dry_run:
        console.say("nothing was written (--dry-run)")
        console.result({"plan": planned(plan)})
        return
    result, seconds = timed(
        console,
        "quantizing",
        lambda progress: recipes.run(folder, wanted, out, overwrite=overwrite, progress=progress),
        f"finished pieces are kept beside {out}",
    )
    rows = by_format(plan, result.formats)
    console.table(["format", "matrices", "parameters", "bits a weight", "size"], rows)
    console.say()
    console.say(
        f"{out}: {numbers.size(result.bytes)} ({numbers.size(plan.source_bytes)} before), {result.bits_per_weight:.3f} bits a weight, "
        f"{numbers.seconds(seconds)}",
        style="bold",
    )
    if result.expected_loss is not None:
        console.say(f"the allocation expects to lose {result.expected_loss:.4f} nats a token")
    console.result({"plan": planned(plan), "result": finished(result, seconds)})


def bits_of(folder: Path, size: str, bits: float | None, weights: str | None, recipe: Path | None) -> float:
    """The budget in bits a weight that a size in bytes is, the largest there is where it is more; RecipeError beside another budget."""
    others = {"--bits": bits, "--weights": weights, "--recipe": recipe}
    if clash := [option for option, value in others.items() if value is not None]:
        raise RecipeError(f"--size and {clash[0]} cannot stand together; give one of them")
    from anybit import models
    from anybit.recipes.recipe import LARGEST_BITS

    return min(LARGEST_BITS, 8 * numbers.parse_size(size) / models.load(folder).parameters)


def by_format(plan: Preflight, formats: Mapping[str, str]) -> list[list[object]]:
    """A row a format of the finished model: matrices, parameters, bits a weight with scales, bytes."""
    from anybit.formats import TensorFormat

    shapes: dict[str, list[tuple[int, int]]] = {}
    for tensor in plan.tensors:
        shapes.setdefault(formats[tensor.name], []).append(tensor.shape)
    rows: list[list[object]] = []
    for spec in sorted(shapes):
        parameters = sum(rows_ * columns for rows_, columns in shapes[spec])
        row: list[object] = [spec, len(shapes[spec]), numbers.count(parameters)]
        if spec == "keep":
            rows.append([*row, None, None])
            continue
        stored = sum(TensorFormat.parse(spec).nbytes(shape) for shape in shapes[spec])
        rows.append([*row, f"{8 * stored / parameters:.3f}", numbers.size(stored)])
    return rows


def announce(console: Console, plan: Preflight) -> None:
    """Print what will be done before it is."""
    formats: dict[str, list[Any]] = {}
    for tensor in plan.tensors:
        formats.setdefault(tensor.format or "chosen by the budget", []).append(tensor)
    rows = [
        [
            name,
            len(tensors),
            numbers.count(sum(t.shape[0] * t.shape[1] for t in tensors)),
            numbers.size(sum(t.bytes for t in tensors)),
        ]
        for name, tensors in formats.items()
    ]
    console.say(f"{plan.model} → {plan.out}, method {plan.method}", style="bold")
    console.table(["format", "matrices", "parameters", "size"], rows)
    if plan.choices:
        console.say(f"the budget chooses among {', '.join(plan.choices)}")
    limit = "at most " if plan.choices else ""
    text = f"{plan.calibration}, {plan.calibration_tokens:,} tokens" if plan.calibration else "not needed"
    static = [["activations", f"{plan.activations}, scales from the calibration text"]] if plan.activations else []
    console.table(
        ["", ""],
        [
            ["parameters", numbers.count(plan.parameters)],
            ["size", f"{numbers.size(plan.source_bytes)} → {limit}{numbers.size(plan.predicted_bytes)}"],
            ["bits a weight", f"{limit}{plan.bits_per_weight:.3f}, everything stored counted"],
            ["transforms", ", ".join(plan.transforms) or "none"],
            *static,
            ["calibration", text],
            ["memory", f"about {numbers.size(plan.memory)}"],
            ["time", f"about {numbers.seconds(plan.seconds)}"],
            ["disk", f"{numbers.size(plan.disk_needed)} needed, {numbers.size(plan.disk_free)} free"],
        ],
    )
    for note in plan.notes:
        console.say(f"note: {note}")
    console.say()


def planned(plan: Preflight) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "model": str(plan.model),
        "out": str(plan.out),
        "method": plan.method,
        "transforms": list(plan.transforms),
        "activations": plan.activations,
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "role": t.role, "format": t.format, "bytes": t.bytes}
            for t in plan.tensors
        ],
        "choices": list(plan.choices),
        "parameters": plan.parameters,
        "source_bytes": plan.source_bytes,
        "predicted_bytes": plan.predicted_bytes,
        "bits_per_weight": plan.bits_per_weight,
        "calibration": str(plan.calibration) if plan.calibration else None,
        "calibration_tokens": plan.calibration_tokens,
        "memory": plan.memory,
        "seconds": plan.seconds,
        "disk_needed": plan.disk_needed,
        "disk_free": plan.disk_free,
        "finished_pieces": plan.finished,
        "notes": list(plan.notes),
    }
