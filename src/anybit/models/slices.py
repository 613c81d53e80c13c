"""A model of 8-bit integers served at fewer bits: the top bits of every code in its blocks (MatGPTQ, arXiv 2602.03537)."""

from __future__ import annotations

from dataclasses import replace

from anybit.errors import AnybitError
from anybit.models.loading import Model
from anybit.models.weights import PARTS, MemoryEntry, Stored, WeightStore
from anybit.quantize import matgptq
from anybit.tensors import QTensor


def at_bits(model: Model, bits: int) -> Model:
    """The model with the int8 weights of its blocks cut to `bits`, in memory; embedding and output matrix stay as they are.

    AnybitError for a number of bits that is not 1 to 8, or where the blocks hold no int8 weights.
    """
    plan, store = model.plan, model.weights
    inside = {op.weights[0].name for a, b in plan.blocks for op in plan.ops[a:b] if op.kind == "linear"}
    entries: dict[str, Stored] = dict(store.entries)
    formats = dict(store.formats)
    cut = [name for name in formats if name in inside and formats[name][0].element.name == f"int{matgptq.MASTER}"]
    if not cut:
        raise AnybitError(f"{model.path} holds no int8 weights to serve at fewer bits; make it with --method matgptq")
    for name in cut:
        whole = store.get(name)
        assert isinstance(whole, QTensor), "its format says so"
        part = whole.at_bits(bits)
        formats[name] = part.format, part.shape
        stem = name.removesuffix(".weight")
        for each in PARTS:
            entries.pop(f"{stem}.{each}", None)
        entries |= {f"{stem}.{each}": MemoryEntry(tensor) for each, tensor in part.tensors().items()}
    return replace(model, weights=WeightStore(entries, formats, store.aliases, store.copies))
