"""A model of 8-bit integers served at fewer bits: the top bits of every code in its blocks (MatGPTQ, arXiv 2602.03537)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from anybit.errors import AnybitError
from anybit.models.loading import Model
from anybit.models.weights import INPUT_SCALE, PARTS, MemoryEntry, Stored, WeightStore
from anybit.quantize import matgptq
from anybit.tensors import QTensor


def sliceable(model: Model) -> dict[str, int]:
    """The int8 weights of a model's blocks -> their numbers of elements. AnybitError where there are none."""
    plan, formats = model.plan, model.weights.formats
    inside = {op.weights[0].name for a, b in plan.blocks for op in plan.ops[a:b] if op.kind == "linear"}
    name = f"int{matgptq.MASTER}"
    found = {
        each: math.prod(shape) for each, (fmt, shape) in formats.items() if each in inside and fmt.element.name == name
    }
    if not found:
        raise AnybitError(f"{model.path} holds no int8 weights to serve at fewer bits; make it with --method matgptq")
    return found


def at_bits(model: Model, bits: int | Mapping[str, int]) -> Model:
    """The model with the int8 weights of its blocks cut to `bits`, in memory; embedding and output matrix stay as they are.

    bits: of all of them, or of each by its name; those without one stay whole.  AnybitError for a number of bits that is not 1 to 8, a name
    that is not among `sliceable`, or where the blocks hold no int8 weights.
    """
    store, able = model.weights, sliceable(model)
    wanted = dict.fromkeys(able, bits) if isinstance(bits, int) else bits
    if unknown := [name for name in wanted if name not in able]:
        raise AnybitError(f"{unknown[0]} is no int8 weight of the blocks of {model.path}; only these can be cut")
    entries: dict[str, Stored] = dict(store.entries)
    formats = dict(store.formats)
    for name, width in wanted.items():
        whole = store.get(name)
        assert isinstance(whole, QTensor), "its format says so"
        part = whole.at_bits(width)
        formats[name] = part.format, part.shape
        stem = name.removesuffix(".weight")
        for each in PARTS:
            if each != INPUT_SCALE:  # what it multiplies stays as it is
                entries.pop(f"{stem}.{each}", None)
        entries |= {f"{stem}.{each}": MemoryEntry(tensor) for each, tensor in part.tensors().items()}
    return replace(model, weights=WeightStore(entries, formats, store.aliases, store.copies))
