"""Static scales of activations in a checkpoint, and in the plan that it is loaded as.

    config.json            quantization_config: {…, "act": "int8/static"}
    model*.safetensors     X.input_scale beside X.codes of every quantized matrix that is multiplied with: float32, finite, above 0

`insert` checks them and writes both onto the linear operators of a plan, as the attributes `act` and `input_scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from anybit.errors import AnybitError, CheckpointError, FormatError
from anybit.formats import is_static
from anybit.models.plan import Op, Plan, Value
from anybit.models.weights import INPUT_SCALE, WeightStore
from anybit.ops import StaticActivations, StaticFormat

ACT = "act"
"""Key of the format in quantization_config, and attribute of linear operators."""


def scale_name(weight: str) -> str:
    """Of the stored scale of what a weight multiplies."""
    return f"{weight.removesuffix('.weight')}.{INPUT_SCALE}"


def asked_for(config: Mapping[str, Any]) -> StaticFormat | None:
    """The static format that config.json names, None where it names none or another kind; CheckpointError where it is malformed."""
    settings = config.get("quantization_config")
    spec = settings.get(ACT) if isinstance(settings, Mapping) else None
    if not isinstance(spec, str) or not is_static(spec):
        return None
    try:
        return StaticFormat.parse(spec)
    except FormatError as error:
        raise CheckpointError(f"config.json: {error}") from None


def insert(plan: Plan, store: WeightStore, fmt: StaticFormat, directory: Path) -> Plan:
    """The plan with `fmt` and the stored scale at every linear operator whose weight is quantized.

    Raises CheckpointError naming the layer where a scale is missing, is no single float32 number that is finite and above 0, or stands
    beside a weight that nothing multiplies with.
    """
    found: dict[str, float] = {}
    ops: list[Op] = []
    for op in plan.ops:
        if op.kind == "residual":
            raise CheckpointError(f"{directory}: residual channels have no meaning beside static scales of activations")
        name = store.aliases.get(op.weights[0].name, op.weights[0].name) if op.weights else ""
        if op.kind == "linear" and name in store.formats:
            if name not in found:
                found[name] = _read(store, name, directory)
            attrs: dict[str, Value] = {**op.attrs, ACT: str(fmt), INPUT_SCALE: found[name]}
            op = replace(op, attrs=attrs)
        ops.append(op)
    wanted = {scale_name(name) for name in found}
    for stored in store.entries:
        if stored.endswith(f".{INPUT_SCALE}") and stored not in wanted:
            raise CheckpointError(
                f"{directory}: {stored!r} belongs to no quantized matrix that the model multiplies with"
            )
    return replace(plan, ops=tuple(ops))


def _read(store: WeightStore, weight: str, directory: Path) -> float:
    name = scale_name(weight)
    if name not in store.entries:
        raise CheckpointError(f"{directory} lacks {name!r}, the static scale of the activations of {weight}")
    entry = store.entries[name]
    if entry.dtype != torch.float32 or entry.shape not in ((), (1,)):
        raise CheckpointError(
            f"{directory}: {name!r} must be one float32 number; it is {entry.dtype} of shape {list(entry.shape)}"
        )
    scale = float(entry.read())
    if not (0 < scale < float("inf")):
        raise CheckpointError(f"{directory}: {name!r} must be finite and above 0; it is {scale}")
    return scale


def format_of(plan: Plan) -> StaticFormat | None:
    """The static format that a plan has scales for."""
    spec = next((op.attrs[ACT] for op in plan.ops if ACT in op.attrs), None)
    return None if spec is None else StaticFormat.parse(str(spec))


def check(plan: Plan, fmt: StaticFormat) -> None:
    """AnybitError where a plan has no scales of that format, or they are of another."""
    held = format_of(plan)
    if held != fmt:
        raise _missing("the model", fmt, held)


def of(op: Op, fmt: StaticFormat) -> StaticActivations:
    """How the inputs of a linear operator are rounded. AnybitError where it has no scale of that format."""
    if op.attrs.get(ACT) != str(fmt):
        raise _missing(op.weights[0].name, fmt, op.attrs.get(ACT))
    return fmt.at(float(op.attrs[INPUT_SCALE]))


def _missing(what: str, fmt: StaticFormat, held: object) -> AnybitError:
    there = "none" if held is None else f"only {held}"
    return AnybitError(
        f"{what} has no scale for {fmt} activations ({there}); make a checkpoint with them by "
        f"`anybit quantize --activations {fmt}`, or choose dynamic ones such as int8/row"
    )
