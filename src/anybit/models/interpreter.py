"""The operators of a plan in plain torch: the readable meaning of each kind, and a loop over a range of them.

Buffers are float32 [..., tokens, width]: leading dimensions are independent sequences, all beginning at the same position. Nothing is
written in place, so gradients flow through every operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from anybit.errors import AnybitError
from anybit.formats import TensorFormat
from anybit.models import static
from anybit.models.plan import Op, Plan, WeightRef
from anybit.models.weights import Weights
from anybit.ops import StaticFormat
from anybit.tensors import QTensor, quantize
from anybit.transforms.block_affine import BlockAffine
from anybit.transforms.hadamard import Rotation

Buffers = dict[str, Tensor]
Hook = Callable[[WeightRef, Tensor], None]
Multiply = Callable[[str, Tensor, Tensor], Tensor]
"""(site, x [m, k], w [n, k]) -> x wᵀ [m, n], float32. site: `WeightRef.site` of the weight, else `scores.LAYER`
(queries times keys, the queries scaled) or `mixing.LAYER` (probabilities times values) of a layer's attention."""

QUERY_ROWS = 256
"""Queries scored at a time: bounds the memory of attention at heads * 256 * positions floats."""


class Cache(Protocol):
    """Keys and values of earlier positions."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append [tokens, kv_heads, head_dim] and return all positions so far."""
        ...


@dataclass(frozen=True)
class Setting:
    """How operators run.

    compute_dtype: what a linear multiplies in; buffers stay float32.
    act: format the inputs of linears with quantized weights are rounded to first, a static one with the scales of the plan; None keeps
    them exact.
    on_linear: called with the input of each linear, before `act`.  on_output: with its result, before any accumulation.
    multiply: computes every matrix product, those of attention included, in arithmetic of its own; None is torch's.
    attention: whether it does; where not, attention is torch's, which computes all heads of all windows at once.
    queries: format that queries are rounded to behind RoPE, every head of a token a row.
    """

    compute_dtype: torch.dtype = torch.float32
    act: TensorFormat | StaticFormat | None = None
    on_linear: Hook | None = None
    on_output: Hook | None = None
    multiply: Multiply | None = None
    attention: bool = True
    queries: TensorFormat | None = None


def run(
    plan: Plan,
    weights: Weights,
    ops: Iterable[Op],
    buffers: Buffers,
    setting: Setting | None = None,
    position: int = 0,
    cache: Cache | None = None,
    last_only: bool = False,
) -> Buffers:
    """Run operators over buffers (`ids` among them for the embedding); returns the buffers, with outputs replaced.

    position: of the first token.  cache: keys and values of earlier positions; None means there are none.
    """
    setting = setting or Setting()
    buffers = dict(buffers)
    for op in ops:
        inputs = [buffers[name] for name in op.inputs]
        if op.kind == "embedding":
            buffers[op.output] = embedding(inputs[0], op, weights)
        elif op.kind == "rms_norm":
            buffers[op.output] = rms_norm(inputs[0], as_float(weights.resolve(op.weights[0])), op)
        elif op.kind == "linear":
            result = linear(inputs[0], op, weights, setting)
            buffers[op.output] = buffers[op.output] + result if op.attrs.get("accumulate") else result
        elif op.kind == "rope":
            buffers[op.output] = rope(inputs[0], angles(plan, op), op, position)
        elif op.kind == "attention":
            query = inputs[0]
            if setting.queries is not None:
                heads = query.reshape(*query.shape[:-1], int(op.attrs["heads"]), -1)
                query = rounded(heads, setting.queries).reshape(query.shape)
            products = setting.multiply if setting.attention else None
            buffers[op.output] = attention(query, inputs[1], inputs[2], op, position, cache, products)
        elif op.kind == "glu":
            buffers[op.output] = ACTIVATIONS[str(op.attrs["activation"])](inputs[0]) * inputs[1]
        elif op.kind == "add":
            buffers[op.output] = inputs[0] + inputs[1]
        elif op.kind == "softcap":
            cap = float(op.attrs["cap"])
            buffers[op.output] = cap * torch.tanh(inputs[0] / cap)
        elif op.kind == "hadamard":
            turn = rotation(op)
            buffers[op.output] = turn.inverse(inputs[0]) if op.attrs.get("inverse") else turn.forward(inputs[0])
        elif op.kind == "block_affine":
            affine = block_affine(op, weights)
            turned = affine.forward(inputs[0])
            buffers[op.output] = turned if setting.act is None else affine.clip(turned)
        elif op.kind == "gather":
            buffers[op.output] = inputs[0][..., plan.constants[str(op.attrs["table"])].long()]
        elif op.kind == "residual":
            act, x = setting.act, inputs[0]  # a plan with residuals has no static scales
            left = x - rounded(x, act) if isinstance(act, TensorFormat) else torch.zeros_like(x)
            buffers[op.output] = left[..., plan.constants[str(op.attrs["table"])].long()]
        elif op.kind == "scatter":
            places = plan.constants[str(op.attrs["table"])].long()
            empty = inputs[0].new_zeros(*inputs[0].shape[:-1], plan.buffers[op.output])
            buffers[op.output] = empty.index_copy(-1, places, inputs[0] * float(op.attrs["factor"]))
        elif op.kind == "last":
            buffers[op.output] = inputs[0][..., -1:, :] if last_only else inputs[0]
        else:
            raise AnybitError(f"the torch executor has no operator {op.kind!r}")
    return buffers


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
"""`activation` of a glu -> function."""


def as_float(weight: Tensor | QTensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values of a stored weight."""
    return weight.dequantize(dtype) if isinstance(weight, QTensor) else weight.to(dtype)


def embedding(ids: Tensor, op: Op, weights: Weights) -> Tensor:
    """Rows of the table times `factor`: ids [..., tokens] -> [..., tokens, width]."""
    table = weights.resolve(op.weights[0])
    factor = float(op.attrs.get("factor", 1.0))
    if isinstance(table, QTensor):
        unique, places = torch.unique(ids.reshape(-1), return_inverse=True)
        if table.format.block[0] == 1 or table.format.scale is None:
            rows = torch.cat([table.rows(int(i), int(i) + 1).dequantize() for i in unique])
        else:
            rows = table.dequantize()[unique]
        return (rows[places] * factor).reshape(*ids.shape, -1)
    return table[ids].float() * factor


def rotation(op: Op) -> Rotation:
    """The rotation that a hadamard operator computes, or whose inverse it does."""
    seed = op.attrs.get("seed")
    return Rotation(int(op.attrs["block"]), None if seed is None else int(seed))


def block_affine(op: Op, weights: Weights) -> BlockAffine:
    """The transform of a block_affine operator, with the factors that are stored for it."""
    return BlockAffine(*(as_float(weights.resolve(ref)) for ref in op.weights))


def rms_norm(x: Tensor, gain: Tensor, op: Op) -> Tensor:
    """x / rms(x) * (gain + offset), rms over each head's columns (Zhang & Sennrich, arXiv 1910.07467)."""
    heads = int(op.attrs.get("heads", 1))
    grouped = x.reshape(*x.shape[:-1], heads, -1)
    scale = torch.rsqrt(grouped.square().mean(-1, keepdim=True) + float(op.attrs["eps"]))
    return (grouped * scale * (gain + float(op.attrs.get("offset", 0.0)))).reshape(x.shape)


def rounded(x: Tensor, act: TensorFormat) -> Tensor:
    """Activations [..., width] as the format holds them, every token a row."""
    return quantize(x.reshape(-1, x.shape[-1]), act).dequantize().reshape(x.shape)


def linear(x: Tensor, op: Op, weights: Weights, setting: Setting) -> Tensor:
    """x W^T + b in `compute_dtype`, as float32."""
    ref = op.weights[0]
    if setting.on_linear is not None:
        setting.on_linear(ref, x)
    stored = weights.resolve(ref)
    if setting.act is not None and isinstance(stored, QTensor):
        act = setting.act
        x = static.of(op, act).round(x) if isinstance(act, StaticFormat) else rounded(x, act)
    dtype = setting.compute_dtype
    bias = as_float(weights.resolve(op.weights[1]), dtype) if len(op.weights) > 1 else None
    if setting.multiply is not None:
        y = setting.multiply(ref.site, x.to(dtype).reshape(-1, x.shape[-1]), as_float(stored, dtype)).float()
        y = (y if bias is None else y + bias.float()).reshape(*x.shape[:-1], -1)
    else:
        y = F.linear(x.to(dtype), as_float(stored, dtype), bias).float()
    if setting.on_output is not None:
        setting.on_output(ref, y)
    return y


def angles(plan: Plan, op: Op) -> Tensor:
    """What a rope operator turns pairs by, radians a position: [pairs], or [heads, pairs] where each head has an order of its own."""
    table = plan.constants[str(op.attrs["table"])]
    order = op.attrs.get("order")
    return table if order is None else table[plan.constants[str(order)].long()].reshape(int(op.attrs["heads"]), -1)


def rope(x: Tensor, table: Tensor, op: Op, position: int) -> Tensor:
    """Rotate the pairs (i, i + pairs) of each head's first 2 pairs columns by position * table[…, i]; table as of `angles`."""
    heads, factor = int(op.attrs["heads"]), float(op.attrs.get("factor", 1.0))
    tokens, half = x.shape[-2], table.shape[-1]
    angle = torch.arange(position, position + tokens, dtype=torch.float32)[:, None, None] * table
    cos, sin = angle.cos() * factor, angle.sin() * factor
    grouped = x.reshape(*x.shape[:-1], heads, -1)
    a, b, rest = grouped[..., :half], grouped[..., half : 2 * half], grouped[..., 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1).reshape(x.shape)


def attention(
    q: Tensor, k: Tensor, v: Tensor, op: Op, position: int, cache: Cache | None, multiply: Multiply | None = None
) -> Tensor:
    """Causal attention of queries at `position`… over all keys so far; `window` w sees the last w positions, itself included."""
    heads, kv_heads = int(op.attrs["heads"]), int(op.attrs["kv_heads"])
    window, softcap = int(op.attrs.get("window", 0)), float(op.attrs.get("softcap", 0.0))
    keys, values = (t.reshape(*t.shape[:-1], kv_heads, -1) for t in (k, v))
    if cache is not None:
        keys, values = cache.extend(int(op.attrs["layer"]), keys, values)
    shared, tokens, total = heads // kv_heads, q.shape[-2], keys.shape[-3]
    queries = (q * float(op.attrs["scale"])).reshape(*q.shape[:-1], kv_heads, shared, -1).movedim(-4, -2)
    keys, values = keys.movedim(-2, -3), values.movedim(-2, -3)  # [..., kv_heads, positions, head_dim]
    parts = []
    for start in range(0, tokens, QUERY_ROWS):
        stop = min(start + QUERY_ROWS, tokens)
        end = total - tokens + stop  # later keys are invisible to these queries
        block = queries[..., start:stop, :].reshape(*queries.shape[:-3], shared * (stop - start), -1)
        scores = _product(f"scores.{op.attrs['layer']}", block, keys[..., :end, :], multiply)
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        query_at = torch.arange(position + start, position + stop).repeat(shared)[:, None]
        key_at = torch.arange(end)
        hidden = key_at > query_at
        if window:
            hidden = hidden | (key_at <= query_at - window)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        mixed = _product(f"mixing.{op.attrs['layer']}", weights, values[..., :end, :].transpose(-1, -2), multiply)
        parts.append(mixed.reshape(*queries.shape[:-2], stop - start, mixed.shape[-1]))
    return torch.cat(parts, -2).movedim(-2, -4).reshape(*q.shape[:-1], -1)


def _product(site: str, x: Tensor, w: Tensor, multiply: Multiply | None) -> Tensor:
    """x [..., m, k] times w [..., n, k] transposed, matrix by matrix where `multiply` computes."""
    if multiply is None:
        return x @ w.transpose(-1, -2)
    pairs = zip(x.reshape(-1, *x.shape[-2:]), w.reshape(-1, *w.shape[-2:]), strict=True)
    results = [multiply(site, a, b) for a, b in pairs]
    y = torch.stack(results) if results else x.new_zeros(0)
    return y.reshape(*x.shape[:-1], w.shape[-2])
