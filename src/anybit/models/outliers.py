"""Outliers put into a model that has none of its own, without changing what it computes.

Above a few billion parameters, activations have a few channels of large values in almost every layer (Dettmers et al., arXiv 2208.07339;
Xiao et al., arXiv 2211.10438), and keys have them in fixed channels (arXiv 2403.20137).  Small models do not, so methods against outliers
have nothing to do on them.  Wherever two linear steps meet, a channel can be multiplied by c in the first and divided by c in the second;
what flows between them then has an outlier channel, and the logits stay as they are:

| kind | between | multiplied | divided |
|------|---------|------------|---------|
| norm | a norm and the linears reading it | gain of the channel | columns of every reader |
| qk   | queries and keys of one head | rows of W_k (gain of a key norm) | rows of W_q of the group (gain of the query norm) |
| vo   | values and the output projection | rows of W_v | columns of W_o of every head of the group |
| ud   | up and down projection | rows of W_up | columns of W_down |

Biases follow their rows.  RoPE rotates channels in pairs, so `qk` scales both of a pair; channels beyond the rotated part stand alone.
Where c is a power of two and nothing is added to a gain, the stored values stay exact and keep their dtype; else they become float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.models.checkpoint import CheckpointWriter
from anybit.models.loading import Model
from anybit.models.plan import Op, Plan, WeightRef
from anybit.models.weights import MemoryEntry, WeightStore
from anybit.tensors import QTensor

KINDS = ("norm", "qk", "vo", "ud")

NOTE = "anybit_outliers"
"""The entry of config.json that says what was injected."""


@dataclass(frozen=True)
class Slice:
    """Rows (`dim` 0) or columns (1) `index` of a tensor; offset: what the operator adds to the stored values."""

    name: str
    dim: int
    index: tuple[int, ...]
    offset: float = 0.0


@dataclass(frozen=True)
class Site:
    """A place for outliers: channels come in units (a pair under RoPE, a single one elsewhere) that are scaled together.

    key: sites with equal keys get the same channels, as the norms of all layers do in large models.
    up(unit), down(unit): the slices multiplied and divided.
    """

    kind: str
    key: str
    units: int
    up: tuple[tuple[Slice, ...], ...]
    down: tuple[tuple[Slice, ...], ...]


def inject_outliers(
    model: Model, fraction: float = 0.01, scale: float = 16.0, kinds: Sequence[str] = KINDS, seed: int = 0
) -> Model:
    """The model with outlier channels and the same logits: changed tensors in its store, a note in its config, its files not touched.

    fraction: share of the channels of each place that become outliers, at least one, at most half.  scale: how many times larger.
    kinds: where; see the module.  seed: which channels.  Equal arguments give equal tensors.
    Raises RecipeError for a fraction, scale or kind that makes no sense, a quantized model, one without any such place, and values that
    leave the range of their dtype.
    """
    if not 0 < fraction <= 0.5:
        raise RecipeError(f"the fraction of outlier channels must lie above 0 and at most at 0.5; got {fraction:g}")
    if not (math.isfinite(scale) and scale > 0):
        raise RecipeError(f"the scale of outliers must be a number above 0; got {scale:g}")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise RecipeError(f"outliers are injected at {', '.join(KINDS)}; got {', '.join(unknown) or 'none'}")
    found = [site for site in sites(model.plan) if site.kind in kinds]
    if not found:
        raise RecipeError(f"{model.path} has no place for outliers of the kinds {', '.join(kinds)}")
    work = _Work(model.weights, scale)
    for site in found:
        for unit in picked(site, fraction, seed):
            for part in site.up[unit]:
                work.scale(part, scale)
            for part in site.down[unit]:
                work.scale(part, 1 / scale)
    note = {"fraction": fraction, "scale": scale, "kinds": list(kinds), "seed": seed}
    config = {**model.config, NOTE: [*model.config.get(NOTE, []), note]}
    return replace(model, weights=work.store(), config=config)


def write(model: Model, out: Path | str, overwrite: bool = False, provenance: Mapping[str, Any] | None = None) -> int:
    """Write a model whose tensors may lie in memory as a directory beside its own config and tokenizer; bytes of its tensors."""
    with CheckpointWriter(out, model.path, overwrite=overwrite, config=model.config) as writer:
        for name in model.plan.weight_names():
            writer.put(name, model.weights.get(name))
        return writer.finish(provenance=provenance)


def picked(site: Site, fraction: float, seed: int) -> list[int]:
    """The units of a site that become outliers, ascending."""
    mixed = sum((i + 1) * ord(c) for i, c in enumerate(site.key)) + 7919 * site.units
    generator = torch.Generator().manual_seed(seed * 1_000_003 + mixed)
    count = max(1, round(fraction * site.units))
    return sorted(torch.randperm(site.units, generator=generator)[:count].tolist())


def sites(plan: Plan) -> list[Site]:
    """Every place for outliers in a plan, found by following its buffers."""
    shared = _shared_tables(plan)
    found: list[Site] = []
    for i, op in enumerate(plan.ops):
        if op.kind == "rms_norm" and int(op.attrs.get("heads", 1)) == 1:
            readers = _readers(plan, i)
            if readers and all(r.kind == "linear" and r.weights[0].name not in shared for r in readers):
                found.append(_norm_site(plan, op, readers))
        elif op.kind == "attention":
            q, k, v = (_origin(plan, i, name) for name in op.inputs)
            found += _qk_sites(plan, op, q, k)
            readers = _readers(plan, i)
            if len(v) == 1 and len(readers) == 1 and readers[0].kind == "linear":
                found += _vo_sites(op, v[0], readers[0], plan)
        elif op.kind == "glu":
            up, readers = _origin(plan, i, op.inputs[1]), _readers(plan, i)
            if len(up) == 1 and len(readers) == 1 and readers[0].kind == "linear":
                units = range(plan.buffers[up[0].output])
                found.append(
                    Site(
                        "ud",
                        up[0].weights[0].name + str(up[0].weights[0].rows),
                        len(units),
                        tuple(_rows(up[0], (c,)) for c in units),
                        tuple((_columns(readers[0], (c,)),) for c in units),
                    )
                )
    return found


def _shared_tables(plan: Plan) -> set[str]:
    """Matrices whose columns may not be scaled, because an embedding looks rows up in them (a tied head)."""
    return {op.weights[0].name for op in plan.ops if op.kind == "embedding"}


def _readers(plan: Plan, start: int) -> list[Op]:
    """The operators that read what operator `start` writes, up to the next that overwrites it."""
    buffer, found = plan.ops[start].output, []
    for op in plan.ops[start + 1 :]:
        if buffer in op.inputs or (op.output == buffer and op.attrs.get("accumulate")):
            found.append(op)
        if op.output == buffer:
            break
    return found


def _origin(plan: Plan, end: int, buffer: str) -> list[Op]:
    """The operators that made the contents of a buffer before operator `end`, from its linear on: [linear, head norm, rope]."""
    chain: list[Op] = []
    for op in reversed(plan.ops[:end]):
        if op.output != buffer:
            continue
        chain.insert(0, op)
        if op.kind == "linear" or buffer not in op.inputs:
            break
    return chain


def _norm_site(plan: Plan, norm: Op, readers: Sequence[Op]) -> Site:
    width = plan.buffers[norm.inputs[0]]
    offset = float(norm.attrs.get("offset", 0.0))
    return Site(
        "norm",
        "norm",
        width,
        tuple((Slice(norm.weights[0].name, 0, (c,), offset),) for c in range(width)),
        tuple(tuple(_columns(op, (c,)) for op in readers) for c in range(width)),
    )


def _qk_sites(plan: Plan, attention: Op, q: Sequence[Op], k: Sequence[Op]) -> list[Site]:
    heads, kv_heads = int(attention.attrs["heads"]), int(attention.attrs["kv_heads"])
    rope = next((op for op in k if op.kind == "rope"), None)
    half = len(plan.constants[str(rope.attrs["table"])]) if rope else 0
    units = [(c, c + half) for c in range(half)] + [(c,) for c in range(2 * half, plan.head_dim)]
    norms = [[op for op in chain if op.kind == "rms_norm"] for chain in (k, q)]
    if all(norms):  # one gain for all heads; what comes before a norm's scale is lost in it
        slices = []
        for (norm,) in norms:
            offset = float(norm.attrs.get("offset", 0.0))
            slices.append(tuple((Slice(norm.weights[0].name, 0, unit, offset),) for unit in units))
        return [Site("qk", norms[0][0].weights[0].name, len(units), slices[0], slices[1])]
    found = []
    for head in range(kv_heads):
        group = range(head * heads // kv_heads, (head + 1) * heads // kv_heads)
        up = tuple(_rows(k[0], _at([head], unit, plan.head_dim)) for unit in units)
        down = tuple(_rows(q[0], _at(group, unit, plan.head_dim)) for unit in units)
        found.append(Site("qk", f"{k[0].weights[0].name}.{head}", len(units), up, down))
    return found


def _vo_sites(attention: Op, v: Op, o: Op, plan: Plan) -> list[Site]:
    heads, kv_heads = int(attention.attrs["heads"]), int(attention.attrs["kv_heads"])
    found = []
    for head in range(kv_heads):
        group = range(head * heads // kv_heads, (head + 1) * heads // kv_heads)
        channels = range(plan.head_dim)
        up = tuple(_rows(v, _at([head], (c,), plan.head_dim)) for c in channels)
        down = tuple((_columns(o, _at(group, (c,), plan.head_dim)),) for c in channels)
        found.append(Site("vo", f"{v.weights[0].name}{v.weights[0].rows}.{head}", len(channels), up, down))
    return found


def _at(heads: Sequence[int] | range, unit: tuple[int, ...], head_dim: int) -> tuple[int, ...]:
    return tuple(head * head_dim + c for head in heads for c in unit)


def _rows(linear: Op, rows: tuple[int, ...]) -> tuple[Slice, ...]:
    """The rows of a linear's weight and bias that make these outputs."""
    return tuple(Slice(ref.name, 0, _shifted(ref, rows)) for ref in linear.weights)


def _columns(linear: Op, columns: tuple[int, ...]) -> Slice:
    """The columns of a linear's weight that read these inputs; only its own rows, where it is one of several in a tensor."""
    ref = linear.weights[0]
    return Slice(ref.name, 1, columns) if ref.rows is None else _Fused(ref.name, 1, columns, 0.0, ref.rows)


@dataclass(frozen=True)
class _Fused(Slice):
    """Columns of some rows of a tensor."""

    rows: tuple[int, int] = (0, 0)


def _shifted(ref: WeightRef, rows: tuple[int, ...]) -> tuple[int, ...]:
    return rows if ref.rows is None else tuple(row + ref.rows[0] for row in rows)


class _Work:
    """Float32 copies of the tensors that change, and the store over them."""

    def __init__(self, base: WeightStore, scale: float) -> None:
        self.base = base
        self.exact = math.frexp(scale)[0] == 0.5
        self.changed: dict[str, Tensor] = {}
        self.widened: set[str] = set()

    def scale(self, part: Slice, factor: float) -> None:
        """Multiply a slice in place of this copy."""
        name = self.base.aliases.get(part.name, part.name)
        if name not in self.changed:
            value = self.base.get(name)
            if isinstance(value, QTensor):
                raise RecipeError(f"{name} is quantized ({value.format}); inject outliers into the original model")
            self.changed[name] = value.to(torch.float32, copy=True)
        value = self.changed[name]
        if isinstance(part, _Fused):
            value = value[part.rows[0] : part.rows[1]]
        index = torch.tensor(part.index)
        if part.offset or not self.exact:
            self.widened.add(name)
        kept = value.index_select(part.dim, index)
        value.index_copy_(part.dim, index, (kept + part.offset) * factor - part.offset)

    def store(self) -> WeightStore:
        """The store with the changed tensors in their dtype, or in float32 where that would round them."""
        entries = dict(self.base.entries)
        for name, value in self.changed.items():
            dtype = entries[name].dtype
            cast = value if name in self.widened or dtype == torch.float64 else value.to(dtype)
            if not torch.isfinite(cast).all() or not torch.equal(cast.float(), value):
                cast = value  # beyond the exponents of its dtype
            if not torch.isfinite(cast).all():
                raise RecipeError(f"{name} would hold infinite values; choose a smaller scale")
            entries[name] = MemoryEntry(cast)
        return WeightStore(entries, self.base.formats, self.base.aliases)
