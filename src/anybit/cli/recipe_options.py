"""From the options of `anybit quantize` to a `Recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anybit.errors import RecipeError

if TYPE_CHECKING:
    from anybit.recipes import Recipe


def recipe(
    file: Path | None,
    weights: str | None,
    bits: float | None,
    method: str | None,
    embeddings: str | None,
    calibration: Path | None,
    samples: int | None,
    length: int | None,
    scale_rule: str | None = None,
    transforms: str | None = None,
    activations: str | None = None,
) -> Recipe:
    """The recipe of a file, or the one the options spell out; the calibration options hold for both.

    Raises RecipeError where options and file contradict, and where neither says what the weights become.
    """
    from anybit.formats import is_static
    from anybit.quantize.table import get
    from anybit.recipes import Recipe

    if activations is not None and not is_static(activations):
        raise RecipeError(
            f"--activations keeps scales in the checkpoint, as int8/static does; got {activations!r}, whose scales are found while "
            "the model runs: give it to eval and generate as --act"
        )
    if file is not None:
        given = {"--weights": weights, "--bits": bits, "--method": method, "--embeddings": embeddings}
        given |= {"--scale-rule": scale_rule, "--transforms": transforms, "--activations": activations}
        clash = [option for option, value in given.items() if value is not None]
        if clash:
            raise RecipeError(f"{clash[0]} and --recipe cannot stand together; write it into {file}")
        document: dict[str, Any] = Recipe.read(file).model_dump(mode="json")
    else:
        if weights is None and bits is None and (method is None or get(method).weights is None):
            raise RecipeError(
                "say what the weights become: --weights FORMAT (such as int4/g128), --bits NUMBER, or --recipe FILE"
            )
        if weights is not None and bits is not None:
            raise RecipeError("--weights (one format) and --bits (a budget) cannot stand together; give one of them")
        document = {"weights": weights, "bits": bits, "method": method, "embeddings": embeddings}
        document["activations"] = activations
        document = {key: value for key, value in document.items() if value is not None}
        if transforms is not None:
            names = [name.strip() for name in transforms.split(",") if name.strip()]
            document["transforms"] = [] if names == ["none"] else names
        if scale_rule is not None:
            document["options"] = {"scale_rule": scale_rule}
    wanted = {"text": None if calibration is None else str(calibration), "samples": samples, "length": length}
    changed = {key: value for key, value in wanted.items() if value is not None}
    if changed:
        document["calibration"] = document.get("calibration", {}) | changed
    return Recipe.parse(document, source=str(file) if file else "the options")
