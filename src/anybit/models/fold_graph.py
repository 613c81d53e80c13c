"""Who feeds whom: the places of a plan where the channels between two linear steps can be changed without a change of the function.

A *site* is a set of channels, with the parts of weights that make them and the parts that read them.  Whatever is done to the channels on
one side is undone on the other; which changes commute with what happens in between depends on the kind:

| kind     | between                                     | scale | permute | rotate |
|----------|---------------------------------------------|-------|---------|--------|
| norm     | gain of a norm and the linears reading it   | yes   | 1       | 1      |
| residual | all writers and all readers of the stream   |       | yes     | 2      |
| qk       | queries and keys of one head                | yes   | 3       | 3      |
| vo       | values and the output projection, a kv head | yes   | yes     | yes    |
| ud       | up and down projection of a gated MLP       | yes   | yes     | 4      |

1 the order and the basis are the residual stream's.  2 `rewriting.rotate_residual`, which has gains and tied tables to look after.
3 only channels that RoPE leaves alone: it turns the others in pairs, by angles of their own, which `reorder` must give the order
too (`online.KeyOrder`).  4 the gate multiplies element by element; it
follows a permutation.

Channels come in units: a pair under RoPE, a single one elsewhere.  A unit has as many members as tensors repeat it: a channel of a kv head
is read by every query head of its group.  Biases follow their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.models.plan import Op, Plan, WeightRef

KINDS = ("norm", "residual", "qk", "vo", "ud")


@dataclass(frozen=True, eq=False)
class Part:
    """Where the channels of a site lie in a tensor.

    index: int64 [units, members]; unit u is the rows (`dim` 0) or columns (1) `index[u]` of the tensor `name`.
    rows: only these rows of the tensor are meant, where the columns belong to one of several matrices in it.
    offset: what the operator adds to the stored values (the 1 of Gemma's gains).  gain: a norm's.
    """

    name: str
    dim: int
    index: Tensor
    rows: tuple[int, int] | None = None
    offset: float = 0.0
    gain: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """made, read: the parts on both sides.  follow: parts that share the order of the channels, and nothing else.

    key: sites with equal keys may want equal treatment, as the norms of all layers (outliers sit in the same channels of each).
    readers: the plan's linear operators that read the channels, in whose inputs they can be measured; empty for `qk` and `residual`.
    allows: of "scale", "permute", "rotate", "reorder".  layer, head: of a qk site, the attention's and the kv head; -1 for all heads.
    """

    kind: str
    key: str
    units: int
    made: tuple[Part, ...]
    read: tuple[Part, ...]
    follow: tuple[Part, ...] = ()
    readers: tuple[int, ...] = ()
    allows: frozenset[str] = frozenset({"scale"})
    layer: int = -1
    head: int = -1


def sites(plan: Plan) -> list[Site]:
    """Every site of a plan, found by following its buffers, in the plan's order; the residual stream comes last."""
    tables = looked_up(plan)
    found: list[Site] = []
    for i, op in enumerate(plan.ops):
        if op.kind == "rms_norm" and int(op.attrs.get("heads", 1)) == 1:
            read = readers(plan, i)
            if read and all(plan.ops[r].kind == "linear" and plan.ops[r].weights[0].name not in tables for r in read):
                found.append(_norm(plan, op, read))
        elif op.kind == "attention":
            q, k, v = (origin(plan, i, name) for name in op.inputs)
            if q[0].kind == k[0].kind == "linear":
                found += _qk(plan, op, q, k)
            read = readers(plan, i)
            if len(v) == 1 and len(read) == 1 and plan.ops[read[0]].kind == "linear":
                found += _vo(plan, op, v[0], read[0])
        elif op.kind == "glu":
            gate, up, read = origin(plan, i, op.inputs[0]), origin(plan, i, op.inputs[1]), readers(plan, i)
            if len(up) == len(gate) == 1 and len(read) == 1 and plan.ops[read[0]].kind == "linear":
                found.append(_ud(plan, gate[0], up[0], read[0]))
    stream = _residual(plan)
    return found if stream is None else [*found, stream]


def looked_up(plan: Plan) -> set[str]:
    """Matrices that an embedding looks rows up in; one of them may be the head too (tied)."""
    return {op.weights[0].name for op in plan.ops if op.kind == "embedding"}


def readers(plan: Plan, start: int) -> list[int]:
    """The operators that read what operator `start` writes, up to the next that overwrites it."""
    buffer, found = plan.ops[start].output, []
    for i in range(start + 1, len(plan.ops)):
        op = plan.ops[i]
        if buffer in op.inputs or (op.output == buffer and op.attrs.get("accumulate")):
            found.append(i)
        if op.output == buffer:
            break
    return found


def origin(plan: Plan, end: int, buffer: str) -> list[Op]:
    """The operators that made the contents of a buffer before operator `end`, from its linear on: [linear, head norm, rope]."""
    chain: list[Op] = []
    for op in reversed(plan.ops[:end]):
        if op.output != buffer:
            continue
        chain.insert(0, op)
        if op.kind == "linear" or buffer not in op.inputs:
            break
    return chain


def rows(linear: Op, index: Tensor) -> tuple[Part, ...]:
    """The rows of a linear's weight and bias that make the outputs `index`."""
    return tuple(Part(ref.name, 0, index + _first(ref)) for ref in linear.weights)


def columns(linear: Op, index: Tensor) -> Part:
    """The columns of a linear's weight that read the inputs `index`."""
    ref = linear.weights[0]
    return Part(ref.name, 1, index, ref.rows)


def gain(norm: Op, index: Tensor) -> Part:
    """The entries of a norm's gain."""
    return Part(norm.weights[0].name, 0, index, offset=float(norm.attrs.get("offset", 0.0)), gain=True)


def _first(ref: WeightRef) -> int:
    return 0 if ref.rows is None else ref.rows[0]


def _single(width: int) -> Tensor:
    return torch.arange(width)[:, None]


def _norm(plan: Plan, norm: Op, read: Sequence[int]) -> Site:
    index = _single(plan.buffers[norm.inputs[0]])
    parts = tuple(columns(plan.ops[r], index) for r in read)
    return Site("norm", "norm", len(index), (gain(norm, index),), parts, readers=tuple(read))


def _qk(plan: Plan, attention: Op, q: Sequence[Op], k: Sequence[Op]) -> list[Site]:
    heads, kv_heads = int(attention.attrs["heads"]), int(attention.attrs["kv_heads"])
    rope = next((op for op in k if op.kind == "rope"), None)
    half = len(plan.constants[str(rope.attrs["table"])]) if rope else 0
    pairs = torch.stack([torch.arange(half), torch.arange(half) + half], 1)
    alone = torch.arange(2 * half, plan.head_dim)[:, None]
    free = frozenset({"scale", "permute", "rotate"})
    norms = [[op for op in chain if op.kind == "rms_norm"] for chain in (k, q)]
    found = []
    layer = int(attention.attrs["layer"])
    turned = frozenset({"scale"} if rope and "order" in rope.attrs else {"scale", "reorder"})
    for units, allows in ((pairs, turned), (alone, free)):
        if not len(units):
            continue
        if all(norms):  # one gain for all heads; what comes before a norm's scale is lost in it
            key_norm, query_norm = norms[0][0], norms[1][0]
            made: tuple[Part, ...] = (gain(key_norm, units),)
            read: tuple[Part, ...] = (gain(query_norm, units),)
            follow = (
                *rows(k[0], _at(range(kv_heads), units, plan.head_dim)),
                *rows(q[0], _at(range(heads), units, plan.head_dim)),
            )
            name, allows = key_norm.weights[0].name, allows - {"rotate"}
            found.append(Site("qk", name, len(units), made, read, follow, allows=allows, layer=layer))
            continue
        for head in range(kv_heads):
            key = f"{k[0].weights[0].name}.{head}"
            made = rows(k[0], _at([head], units, plan.head_dim))
            read = rows(q[0], _at(_group(head, heads, kv_heads), units, plan.head_dim))
            found.append(Site("qk", key, len(units), made, read, allows=allows, layer=layer, head=head))
    return found


def _vo(plan: Plan, attention: Op, v: Op, o: int) -> list[Site]:
    heads, kv_heads = int(attention.attrs["heads"]), int(attention.attrs["kv_heads"])
    channels = _single(plan.head_dim)
    found = []
    for head in range(kv_heads):
        made = rows(v, _at([head], channels, plan.head_dim))
        read = (columns(plan.ops[o], _at(_group(head, heads, kv_heads), channels, plan.head_dim)),)
        key = f"{v.weights[0].name}{v.weights[0].rows}.{head}"
        allows = frozenset({"scale", "permute", "rotate"})
        found.append(Site("vo", key, len(channels), made, read, readers=(o,), allows=allows))
    return found


def _ud(plan: Plan, gate: Op, up: Op, down: int) -> Site:
    index = _single(plan.buffers[up.output])
    return Site(
        "ud",
        up.weights[0].name + str(up.weights[0].rows),
        len(index),
        rows(up, index),
        (columns(plan.ops[down], index),),
        rows(gate, index),
        (down,),
        frozenset({"scale", "permute"}),
    )


def stream(plan: Plan) -> str:
    """The buffer that the embedding writes and every block adds to."""
    return next(op.output for op in plan.ops if op.kind == "embedding")


def _residual(plan: Plan) -> Site | None:
    """None where something else than norms reads the stream, or something else than linears and normed values writes it."""
    x = stream(plan)
    index = _single(plan.buffers[x])
    made: dict[tuple[str, int], Part] = {}
    read: dict[tuple[str, tuple[int, int] | None], Part] = {}
    follow: list[Part] = []
    for i, op in enumerate(plan.ops):
        if op.kind == "embedding":
            made[op.weights[0].name, 1] = Part(op.weights[0].name, 1, index)
        elif op.kind == "linear" and op.output == x:
            for part in rows(op, index):
                made[part.name, 0] = part
        elif op.kind == "rms_norm" and int(op.attrs.get("heads", 1)) == 1 and x in op.inputs:
            follow.append(gain(op, index))
            for r in readers(plan, i):
                if plan.ops[r].kind != "linear":
                    return None
                part = columns(plan.ops[r], index)
                if (part.name, 1) not in made:  # a tied head shares the columns of the embedding
                    read[part.name, part.rows] = part
        elif op.kind == "add" and x in op.inputs:
            chain = origin(plan, i, next(name for name in op.inputs if name != x))
            if [step.kind for step in chain] != ["linear", "rms_norm"]:
                return None
            for part in rows(chain[0], index):
                made[part.name, 0] = part
            follow.append(gain(chain[1], index))
        elif op.kind == "last" and op.output == x:
            continue
        elif x in op.inputs:
            return None
    return Site(
        "residual", "residual", len(index), tuple(made.values()), tuple(read.values()), tuple(follow),
        allows=frozenset({"permute"}),
    )  # fmt: skip


def _group(head: int, heads: int, kv_heads: int) -> range:
    return range(head * heads // kv_heads, (head + 1) * heads // kv_heads)


def _at(heads: Sequence[int] | range, units: Tensor, head_dim: int) -> Tensor:
    """The units of every head side by side: [units, heads * members]."""
    return torch.cat([head * head_dim + units for head in heads], 1)
