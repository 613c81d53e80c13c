"""Transforms that are left to be computed while a model runs, because no matrix stands where they could be folded in.

A checkpoint lists them in config.json, under `online` of its `quantization_config`:

    {"transform": "hadamard", "block": 64, "seed": 3, "inverse": false, "before": ["model.layers.0.mlp.down_proj.weight"], "after": []}

    {"transform": "split", "columns": [3, 90], "weights": ["model.layers.0.mlp.down_proj.weight"]}

    {"transform": "residual", "columns": [16, 17, …], "weights": ["model.layers.0.mlp.down_proj.weight"]}

    {"transform": "block_affine", "block": 32, "shared": 8, "clip": true, "before": ["model.layers.0.mlp.down_proj.weight"]}

    {"transform": "key_order", "layer": 0, "pairs": true, "orders": [[2, 0, 1, …], …]}

`before` names the weights (of linears or norms) whose input is transformed, `after` those (of embeddings or norms) whose output is.  A
split takes input columns out of the linears with these weights; a dense matrix for each, stored as `X.outliers` beside `X.weight`, reads
them instead.  A residual gives what the rounding of activations leaves over in some columns to copies of these columns of the weight.  A
block-affine transform has its factors beside the first of its weights, `X.affine_shared` and `X.affine_own`, and where activations are
clipped the bounds, `X.affine_kept`.
`insert` puts the operators into a plan; linears that read the same value share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anybit.errors import CheckpointError
from anybit.models.plan import Op, Plan, Value, WeightRef
from anybit.transforms.block_affine import BlockAffine
from anybit.transforms.hadamard import Rotation

KEY = "online"
OUTLIERS = ".outliers"
RESIDUAL = ".residual"
AFFINE = (".affine_shared", ".affine_own", ".affine_kept")
BESIDE = (OUTLIERS, RESIDUAL, *AFFINE)
"""Endings of the names of tensors that are no parameters of the model, or are counted in others."""


@dataclass(frozen=True)
class Online:
    """A rotation, or its inverse, of the inputs of the ops with the weights `before` and of the outputs of those with `after`."""

    rotation: Rotation
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    inverse: bool = False

    def op(self, source: str, to: str, width: int) -> tuple[Op, dict[str, tuple[int, ...]]]:
        """The operator, and the shapes of the weights it brings along; CheckpointError where blocks do not divide the width."""
        if width % self.rotation.block:
            raise CheckpointError(f"blocks of {self.rotation.block}, but its width is {width}")
        attrs: dict[str, Value] = {"block": self.rotation.block, "inverse": int(self.inverse)}
        if self.rotation.seed is not None:
            attrs["seed"] = self.rotation.seed
        return Op("hadamard", (source,), to, (), attrs), {}

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {
            "transform": "hadamard",
            "block": self.rotation.block,
            "seed": self.rotation.seed,
            "inverse": self.inverse,
            "before": list(self.before),
            "after": list(self.after),
        }


@dataclass(frozen=True)
class Affine:
    """A block-affine transform of the value that the linears with the weights `before` read.

    block, shared: sizes of a block and of the shared factor.  clip: whether there are bounds.
    """

    block: int
    shared: int
    clip: bool
    before: tuple[str, ...]
    after: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Of the tensors that hold the factors and, where there are any, the bounds."""
        stem = self.before[0].removesuffix(".weight")
        return tuple(stem + ending for ending in (AFFINE if self.clip else AFFINE[:2]))

    def tensors(self, affine: BlockAffine) -> dict[str, Tensor]:
        """The tensors of a transform by name."""
        given = (affine.shared, affine.own, affine.kept)
        return {name: value for name, value in zip(self.names(), given, strict=False) if value is not None}

    def shapes(self, width: int) -> dict[str, tuple[int, ...]]:
        """Of the tensors; CheckpointError where blocks do not divide the width."""
        if width % self.block or self.block % self.shared:
            raise CheckpointError(f"blocks of {self.block} with a factor of {self.shared}, but its width is {width}")
        size, count = self.block // self.shared, width // self.block
        each = (self.shared, self.shared), (count, size, size), (2, count)
        return dict(zip(self.names(), each, strict=False))

    def op(self, source: str, to: str, width: int) -> tuple[Op, dict[str, tuple[int, ...]]]:
        """As of `Online`."""
        refs = tuple(WeightRef(name) for name in self.names())
        return Op("block_affine", (source,), to, refs), self.shapes(width)

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it."""
        sizes = {"block": self.block, "shared": self.shared, "clip": self.clip}
        return {"transform": "block_affine", **sizes, "before": list(self.before)}


@dataclass(frozen=True)
class Columns:
    """Input columns of the linears with these weights, all of which read one value."""

    columns: tuple[int, ...]
    weights: tuple[str, ...]
    kind = ""

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it."""
        return {"transform": self.kind, "columns": list(self.columns), "weights": list(self.weights)}


@dataclass(frozen=True)
class Split(Columns):
    """Columns that matrices of their own read."""

    kind = "split"


@dataclass(frozen=True)
class Residual(Columns):
    """Columns whose residual, what the rounding of activations leaves over, is multiplied with them once more."""

    kind = "residual"


@dataclass(frozen=True)
class KeyOrder:
    """The order of the channels of keys and queries of a layer, one a kv head.

    pairs: the pairs under RoPE stand in that order in the weights, and their angles follow; else each list holds all channels of a head,
    which are put into order behind RoPE.
    """

    layer: int
    pairs: bool
    orders: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As config.json holds it."""
        orders = [list(order) for order in self.orders]
        return {"transform": "key_order", "layer": self.layer, "pairs": self.pairs, "orders": orders}


AtRunTime = KeyOrder | Online | Affine | Split | Residual


def outliers_name(weight: str) -> str:
    """Of the matrix that reads the columns split off a weight."""
    return f"{weight.removesuffix('.weight')}{OUTLIERS}"


def residual_name(weight: str) -> str:
    """Of the copies of a weight's columns that residuals are multiplied with; they are not stored."""
    return f"{weight.removesuffix('.weight')}{RESIDUAL}"


def copies(online: Sequence[AtRunTime]) -> dict[str, tuple[str, torch.Tensor]]:
    """What a store must be told of residuals: name of the copies -> weight and its columns."""
    return {
        residual_name(weight): (weight, torch.tensor(each.columns))
        for each in online
        if isinstance(each, Residual)
        for weight in each.weights
    }


def read(settings: Mapping[str, Any]) -> list[AtRunTime]:
    """The online transforms under `quantization_config`. CheckpointError naming what is malformed or unknown."""
    found: list[AtRunTime] = []
    for entry in settings.get(KEY, []):
        try:
            if entry["transform"] in ("split", "residual"):
                columns = tuple(int(column) for column in entry["columns"])
                if not columns or min(columns) < 0 or len(set(columns)) < len(columns):
                    raise ValueError("columns are different numbers of at least 0")
                made = Split if entry["transform"] == "split" else Residual
                found.append(made(columns, tuple(str(name) for name in entry["weights"])))
                continue
            if entry["transform"] == "key_order":
                orders = tuple(tuple(int(place) for place in order) for order in entry["orders"])
                if any(sorted(order) != list(range(len(order))) for order in orders):
                    raise ValueError("an order lists every channel once")
                found.append(KeyOrder(int(entry["layer"]), bool(entry["pairs"]), orders))
                continue
            if entry["transform"] == "block_affine":
                block, shared = int(entry["block"]), int(entry["shared"])
                names = tuple(str(name) for name in entry["before"])
                if block < 1 or shared < 1 or not names:
                    raise ValueError("sizes are at least 1, and some weight reads the transform")
                found.append(Affine(block, shared, bool(entry["clip"]), names))
                continue
            if entry["transform"] != "hadamard":
                raise CheckpointError(
                    f"config.json lists the online transform {entry['transform']!r}, which is not known"
                )
            seed = entry["seed"]
            rotation = Rotation(int(entry["block"]), None if seed is None else int(seed))
            before, after = (tuple(str(name) for name in entry[key]) for key in ("before", "after"))
            found.append(Online(rotation, before, after, bool(entry["inverse"])))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"config.json: a malformed entry in {KEY!r} ({error})") from None
    return found


def insert(plan: Plan, online: Sequence[AtRunTime]) -> Plan:
    """The plan with the transforms in their places. CheckpointError for a weight that no operator of the right kind has."""
    for each in online:
        # Buffers are named by how many there are, so that transforms added later do not meet the names of earlier ones.
        number = len(plan.buffers)
        if isinstance(each, KeyOrder):
            plan = _key_order(plan, each, number)
        else:
            plan = _insert(plan, each, number) if isinstance(each, Online | Affine) else _columns(plan, each, number)
    return plan


def unsorted(plan: Plan) -> Plan:
    """The same function for a cache without blocks: pairs that a `KeyOrder` has sorted are put back before RoPE."""
    ops: list[Op] = []
    place: list[int] = []
    buffers, constants = dict(plan.buffers), dict(plan.constants)
    renamed: dict[str, str] = {}
    for op in plan.ops:
        place.append(len(ops))
        if op.kind == "rope" and "order" in op.attrs:
            name, heads = op.output, int(op.attrs["heads"])
            order = constants[str(op.attrs["order"])].long().reshape(heads, -1)
            width = buffers[name] // heads
            channels = torch.arange(width).repeat(heads, 1)
            channels[:, : 2 * order.shape[1]] = torch.cat([order.argsort(1), order.argsort(1) + order.shape[1]], 1)
            back = channels + width * torch.arange(heads)[:, None]
            table, made = f"{op.attrs['order']}.back", f"{name}.unsorted"
            constants[table], buffers[made], renamed[name] = back.reshape(-1).float(), buffers[name], made
            attrs = {key: value for key, value in op.attrs.items() if key != "order"}
            ops += [Op("gather", op.inputs, made, (), {"table": table}), Op("rope", (made,), made, (), attrs)]
        elif op.kind == "attention":
            ops.append(replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs)))
            renamed = {}
        else:
            ops.append(op)
    place.append(len(ops))
    blocks = tuple((place[a], place[b]) for a, b in plan.blocks)
    return replace(plan, ops=tuple(ops), blocks=blocks, buffers=buffers, constants=constants)


def _key_order(plan: Plan, order: KeyOrder, number: int) -> Plan:
    at = next((i for i, op in enumerate(plan.ops) if op.kind == "attention" and op.attrs["layer"] == order.layer), None)
    if at is None or len(order.orders) != plan.kv_heads:
        raise CheckpointError(
            f"config.json lists an order of the keys of layer {order.layer} for {len(order.orders)} heads; the model has "
            f"{plan.layers} layers of {plan.kv_heads}"
        )
    attention = plan.ops[at]
    ops, buffers, constants = list(plan.ops), dict(plan.buffers), dict(plan.constants)
    added: list[Op] = []
    inputs = list(attention.inputs)
    for which, name in enumerate(attention.inputs[:2]):
        heads = buffers[name] // plan.head_dim
        each = torch.tensor(order.orders).repeat_interleave(heads // plan.kv_heads, 0)
        table = f"order.{number}.{order.layer}.{which}"
        if order.pairs:
            rope = next((i for i in range(at - 1, -1, -1) if ops[i].output == name), -1)
            half = len(constants[str(ops[rope].attrs["table"])]) if ops[rope].kind == "rope" else 0
            if each.shape[1] != half:
                raise CheckpointError(f"config.json lists an order of {each.shape[1]} pairs; RoPE turns {half}")
            constants[table] = each.reshape(-1).float()
            ops[rope] = replace(ops[rope], attrs={**ops[rope].attrs, "order": table})
            continue
        if each.shape[1] != plan.head_dim:
            raise CheckpointError(f"config.json lists an order of {each.shape[1]} channels; a head has {plan.head_dim}")
        constants[table] = (each + plan.head_dim * torch.arange(heads)[:, None]).reshape(-1).float()
        inputs[which] = f"{name}.{number}"
        buffers[inputs[which]] = buffers[name]
        added.append(Op("gather", (name,), inputs[which], (), {"table": table}))
    ops[at : at + 1] = [*added, replace(attention, inputs=tuple(inputs))]
    blocks = tuple((a + len(added) * (a > at), b + len(added) * (b > at)) for a, b in plan.blocks)
    return replace(plan, ops=tuple(ops), blocks=blocks, buffers=buffers, constants=constants)


def _columns(plan: Plan, split: Split | Residual, number: int) -> Plan:
    ops: list[Op] = []
    place: list[int] = []
    buffers, constants = dict(plan.buffers), dict(plan.constants)
    table = f"columns.{number}"
    constants[table] = torch.tensor(split.columns, dtype=torch.float32)
    missing = set(split.weights)
    source: tuple[str, int] | None = None
    writer: dict[str, int] = {}
    for i, op in enumerate(plan.ops):
        place.append(len(ops))
        name = op.weights[0].name if op.weights else ""
        if op.kind == "linear" and name in split.weights:
            missing.discard(name)
            x = op.inputs[0]
            value = (x, writer.get(x, -1))
            if source not in (None, value):
                raise CheckpointError(
                    f"config.json splits columns of {name!r} together with weights that read another value"
                )
            out, negative, rest = (f"{x}.{number}.{part}" for part in ("out", "negative", "rest"))
            if source is None:
                source = value
                if max(split.columns) >= buffers[x]:
                    raise CheckpointError(
                        f"config.json splits column {max(split.columns)} off {name!r}, which reads {buffers[x]}"
                    )
                buffers[out] = len(split.columns)
                if isinstance(split, Split):
                    buffers |= {negative: buffers[x], rest: buffers[x]}
                    ops.append(Op("gather", (x,), out, (), {"table": table}))
                    ops.append(Op("scatter", (out,), negative, (), {"table": table, "factor": -1.0}))
                    ops.append(Op("add", (x, negative), rest))
                else:
                    ops.append(Op("residual", (x,), out, (), {"table": table}))
            ops.append(replace(op, inputs=(rest,)) if isinstance(split, Split) else op)
            own = outliers_name(name) if isinstance(split, Split) else residual_name(name)
            ref = replace(op.weights[0], name=own)
            ops.append(Op("linear", (out,), op.output, (ref,), {"accumulate": 1}))
        else:
            ops.append(op)
        writer[op.output] = i
    if missing:
        raise CheckpointError(f"config.json lists an online transform at {min(missing)!r}, where the model has none")
    place.append(len(ops))
    blocks = tuple((place[a], place[b]) for a, b in plan.blocks)
    return replace(plan, ops=tuple(ops), blocks=blocks, buffers=buffers, constants=constants)


def _insert(plan: Plan, online: Online | Affine, number: int) -> Plan:
    ops: list[Op] = []
    place: list[int] = []  # where each old op begins in the new list
    buffers, shapes = dict(plan.buffers), dict(plan.shapes)
    rotated: dict[tuple[str, int], str] = {}
    writer: dict[str, int] = {}
    missing = {*online.before, *online.after}
    for i, op in enumerate(plan.ops):
        place.append(len(ops))
        name = op.weights[0].name if op.weights else ""
        if name in online.before and op.kind in ("linear", "rms_norm"):
            missing.discard(name)
            source = op.inputs[0]
            value = (source, writer.get(source, -1))
            if value not in rotated:
                width = buffers[source]
                # One buffer a source: what it held for an earlier layer has been read by then.
                rotated[value] = f"{source}.{number}"
                buffers[rotated[value]] = width
                turned, needed = _op(online, source, rotated[value], width, name)
                ops.append(turned)
                shapes |= needed
            op = replace(op, inputs=(rotated[value],))
        if name in online.after and op.kind in ("embedding", "rms_norm"):
            missing.discard(name)
            plain = f"{op.output}.{number}"
            buffers[plain] = buffers[op.output]
            ops += [replace(op, output=plain), _op(online, plain, op.output, buffers[plain], name)[0]]
        else:
            ops.append(op)
        writer[op.output] = i
    if missing:
        raise CheckpointError(f"config.json lists an online transform at {min(missing)!r}, where the model has none")
    place.append(len(ops))
    blocks = tuple((place[a], place[b]) for a, b in plan.blocks)
    return replace(plan, ops=tuple(ops), blocks=blocks, buffers=buffers, shapes=shapes)


def _op(online: Online | Affine, source: str, to: str, width: int, name: str) -> tuple[Op, dict[str, tuple[int, ...]]]:
    try:
        return online.op(source, to, width)
    except CheckpointError as error:
        raise CheckpointError(f"config.json lists a transform at {name!r} in {error}") from None
