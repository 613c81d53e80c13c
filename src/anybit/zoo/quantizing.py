"""Quantizing the members that are nn.Modules, through `models.module`; decoders go through `recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import nn

from anybit.errors import CheckpointError, RecipeError
from anybit.formats import TensorFormat
from anybit.models.module import KEPT, quantize_module, uniform
from anybit.models.module_state import save_module
from anybit.nn import Holder
from anybit.quantize import table
from anybit.zoo.loading import load
from anybit.zoo.networks import NETWORKS


@dataclass(frozen=True)
class Quantized:
    """method: by which.  layers, parameters: how many were quantized.  bytes: of all that was stored.

    bits_per_weight: over the quantized layers.  notes: what a reader should know, a sentence each.
    """

    method: str
    layers: int
    parameters: int
    bytes: int
    bits_per_weight: float
    notes: tuple[str, ...] = ()


def quantize(name: str, out: Path, weights: str, method: str | None = None, overwrite: bool = False) -> Quantized:
    """Every linear and convolutional layer of a member in one format (depthwise ones: `models.module.uniform`), written to `out`.

    method: a name of `quantize.table`; where None, gptq for members with calibration data apart from what they are scored on, else rtn.

    Raises what `load` and `quantize_module` raise; RecipeError where the method looks at inputs and the member has none to show apart
    from those it is scored on; CheckpointError where `out` exists.
    """
    fmt = TensorFormat.parse(weights)
    if out.exists() and not overwrite:
        raise CheckpointError(f"{out} exists; choose another output or pass --overwrite")
    network = NETWORKS[name]
    method = method or ("gptq" if network.calibration else "rtn")
    needs = table.get(method).needs == "hessian"
    if needs and network.calibration is None:
        raise RecipeError(
            f"{name} has no data but what it is scored on, and {method} calibrates on some; use --method rtn"
        )
    module = load(name)
    assert isinstance(module, nn.Module), "a network"
    chosen = uniform(module, fmt)
    notes = advice(chosen, fmt, method, network.calibration is not None)
    quantize_module(module, chosen, method, network.calibration() if needs and network.calibration else ())
    save_module(module, out, overwrite, {"member": name, "weights": str(fmt), "method": method})
    held = [layer for layer in module.modules() if isinstance(layer, Holder)]
    parameters = sum(prod(layer.shape) for layer in held)
    bits = 8 * sum(layer.weight.nbytes for layer in held) / parameters
    return Quantized(method, len(held), parameters, (out / "model.safetensors").stat().st_size, bits, notes)


def advice(chosen: Mapping[str, TensorFormat], fmt: TensorFormat, method: str, calibration: bool) -> tuple[str, ...]:
    """What to say of a choice of formats: layers that were kept at eight bits, and few bits without calibration."""
    notes = []
    if kept := sum(found != fmt for found in chosen.values()):
        notes.append(f"{kept} grouped convolutions go to {KEPT}, for at {fmt} they would cost most of the metric")
        if method == "rtn":
            instead = "--method gptq" if calibration else "--weights int8/row"
            notes.append(
                f"a network of depthwise convolutions rounded to {fmt.element.name} without calibration may lose its metric; "
                f"{instead} keeps more of it"
            )
    return tuple(notes)
