"""Quantized nn.Modules on disk: one safetensors file and `anybit.json`, which names the format of every layer and the file's sha256."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import nn

from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.models.config import read_json
from anybit.models.module import QUANTIZABLE, replace_layer, twin
from anybit.nn import Holder
from anybit.nn.holder import empty

WEIGHTS, MANIFEST = "model.safetensors", "anybit.json"


def save_module(
    model: nn.Module, directory: str | Path, overwrite: bool = False, notes: Mapping[str, Any] | None = None
) -> None:
    """Write a module's state and the formats of its quantized layers; layers shared under several names are stored once.

    notes: what else anybit.json shall say, as JSON values under `notes`.

    Written beside `directory` and renamed, so that nothing half-written stays. Raises CheckpointError where `directory` exists
    and `overwrite` is not set.
    """
    target = Path(directory)
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} exists; choose another name or pass overwrite=True")
    formats = {
        name: str(layer.format)
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, Holder)
    }
    writing = target.with_name(target.name + ".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        save_model(model, str(writing / WEIGHTS))
        manifest: dict[str, Any] = {"module": type(model).__name__, "formats": formats}
        manifest |= {"sha256": _sha256(writing / WEIGHTS), "notes": dict(notes or {})}
        (writing / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        writing.rename(target)
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def load_module(model: nn.Module, directory: str | Path) -> None:
    """Load what `save_module` wrote into a freshly built, unquantized model of the same architecture, in place.

    Raises CheckpointError where files are missing or damaged, or where the model has no such layers; then it is unchanged
    but for layers already replaced.
    """
    source = Path(directory)
    manifest = read_json(source / MANIFEST, "a quantized module's directory holds model.safetensors and anybit.json")
    weights = source / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing")
    if _sha256(weights) != manifest.get("sha256"):
        raise CheckpointError(f"{weights} does not have the sha256 that {MANIFEST} records; the file is damaged")
    layers = dict(model.named_modules(remove_duplicate=False))
    formats: dict[str, str] = manifest.get("formats", {})
    for name in formats:
        if not isinstance(layers.get(name), QUANTIZABLE):
            raise CheckpointError(
                f"{MANIFEST} lists {name!r} as quantized; this {type(model).__name__} has no such layer"
            )
    twins: dict[int, Holder] = {}
    for name, spec in formats.items():
        layer = layers[name]
        if id(layer) not in twins:
            weight = layer.weight
            assert isinstance(weight, nn.Parameter), "quantizable layers have a weight"
            twins[id(layer)] = twin(layer, empty(tuple(weight.shape), TensorFormat.parse(spec)))
        replace_layer(model, name, twins[id(layer)])
    try:
        load_model(model, str(weights))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{weights} does not fit this {type(model).__name__}: {first}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
