"""Random tiny decoders as plans, and a float64 interpreter of plans that shares no code with the executors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor

from anybit.models.plan import Op, Plan, WeightRef
from anybit.tensors import QTensor

Array = NDArray[np.float64]


@dataclass
class Weights:
    """A `WeightStore` of tensors in memory."""

    tensors: dict[str, Tensor | QTensor] = field(default_factory=dict)

    def resolve(self, ref: WeightRef) -> Tensor | QTensor:
        tensor = self.tensors[ref.name]
        if ref.rows is None:
            return tensor
        return tensor.rows(*ref.rows) if isinstance(tensor, QTensor) else tensor[slice(*ref.rows)]


@dataclass(frozen=True)
class Tiny:
    """What a random decoder looks like; the defaults are a Llama."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 96
    vocab: int = 288
    activation: str = "silu"
    tied: bool = True
    bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False  # Gemma: sandwich norms with offset 1, scaled embedding
    window: int = 0  # of every second layer
    attention_cap: float = 0.0
    logits_cap: float = 0.0
    rotated: float = 1.0  # share of a head's columns
    fused: bool = False  # Phi-3: one qkv tensor, one gate_up tensor


FAMILIES = {
    "llama": Tiny(),
    "llama-untied-odd": Tiny(hidden=48, heads=3, kv_heads=3, head_dim=10, ffn=80, vocab=250, tied=False),
    "mistral": Tiny(window=24, heads=8, kv_heads=1, head_dim=8),
    "qwen2": Tiny(bias=True, heads=6, kv_heads=3),
    "qwen3": Tiny(qk_norm=True, head_dim=32),
    "phi3": Tiny(fused=True, tied=False, rotated=0.75, head_dim=16),
    "gemma2": Tiny(post_norms=True, activation="gelu_tanh", window=24, attention_cap=50.0, logits_cap=30.0),
    "gelu": Tiny(activation="gelu"),
    # matrices of a size whose last columns ranks take from one another
    "wide": Tiny(hidden=512, layers=1, heads=8, kv_heads=4, head_dim=64, ffn=1040, tied=False),
}


def make_plan(t: Tiny, seed: int) -> tuple[Plan, Weights]:
    generator = torch.Generator().manual_seed(seed)
    store = Weights()

    def matrix(name: str, rows: int, cols: int) -> WeightRef:
        store.tensors[name] = torch.randn(rows, cols, generator=generator) * (1.5 / cols**0.5)
        return WeightRef(name)

    def gain(name: str, width: int) -> WeightRef:
        store.tensors[name] = torch.randn(width, generator=generator) * 0.1 + (0.0 if t.post_norms else 1.0)
        return WeightRef(name)

    offset = 1.0 if t.post_norms else 0.0
    q, kv = t.heads * t.head_dim, t.kv_heads * t.head_dim
    norm = {"eps": 1e-5, "offset": offset, "heads": 1}
    table = matrix("embed", t.vocab, t.hidden)
    ops = [Op("embedding", ("ids",), "x", (table,), {"factor": t.hidden**0.5 if t.post_norms else 1.0})]
    blocks = []
    for i in range(t.layers):
        begin, pre = len(ops), f"layers.{i}."

        def bias(name: str, width: int, pre: str = pre) -> tuple[WeightRef, ...]:
            return (gain(pre + name + ".bias", width),) if t.bias else ()

        if t.fused:
            matrix(pre + "qkv", q + 2 * kv, t.hidden)
            matrix(pre + "gate_up", 2 * t.ffn, t.hidden)
            wq, wk, wv = (WeightRef(pre + "qkv", r) for r in ((0, q), (q, q + kv), (q + kv, q + 2 * kv)))
            gate, up = (WeightRef(pre + "gate_up", r) for r in ((0, t.ffn), (t.ffn, 2 * t.ffn)))
        else:
            wq, wk, wv = (matrix(pre + n, w, t.hidden) for n, w in (("q", q), ("k", kv), ("v", kv)))
            gate, up = (matrix(pre + n, t.ffn, t.hidden) for n in ("gate", "up"))
        ops.append(Op("rms_norm", ("x",), "h", (gain(pre + "norm1", t.hidden),), norm))
        for name, w, width in (("q", wq, q), ("k", wk, kv), ("v", wv, kv)):
            ops.append(Op("linear", ("h",), name, (w, *bias(name, width))))
        for name, heads in (("q", t.heads), ("k", t.kv_heads)):
            if t.qk_norm:
                ops.append(
                    Op("rms_norm", (name,), name, (gain(pre + name + "_norm", t.head_dim),), {**norm, "heads": heads})
                )
            ops.append(Op("rope", (name,), name, (), {"heads": heads, "table": "rope", "factor": 1.0}))
        attention = {
            "layer": i, "heads": t.heads, "kv_heads": t.kv_heads, "scale": t.head_dim**-0.5,
            "window": t.window if i % 2 == 0 else 0, "softcap": t.attention_cap,
        }  # fmt: skip
        ops.append(Op("attention", ("q", "k", "v"), "a", (), attention))
        ops += _into_residual(t, "a", "o", matrix(pre + "o", t.hidden, q), gain, pre + "post1", norm)
        ops.append(Op("rms_norm", ("x",), "h", (gain(pre + "norm2", t.hidden),), norm))
        ops.append(Op("linear", ("h",), "gate", (gate,)))
        ops.append(Op("linear", ("h",), "up", (up,)))
        ops.append(Op("glu", ("gate", "up"), "gate", (), {"activation": t.activation}))
        ops += _into_residual(t, "gate", "o", matrix(pre + "down", t.hidden, t.ffn), gain, pre + "post2", norm)
        blocks.append((begin, len(ops)))
    ops.append(Op("last", ("x",), "x"))
    ops.append(Op("rms_norm", ("x",), "x", (gain("norm", t.hidden),), norm))
    ops.append(Op("linear", ("x",), "logits", (table if t.tied else matrix("head", t.vocab, t.hidden),)))
    if t.logits_cap:
        ops.append(Op("softcap", ("logits",), "logits", (), {"cap": t.logits_cap}))
    half = int(t.head_dim * t.rotated) // 2
    buffers = {
        "x": t.hidden, "h": t.hidden, "q": q, "k": kv, "v": kv, "a": q, "o": t.hidden, "gate": t.ffn, "up": t.ffn,
        "logits": t.vocab,
    }  # fmt: skip
    frequencies = (10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)).float()
    plan = Plan(
        tuple(ops), tuple(blocks), buffers, {"rope": frequencies}, t.vocab, t.layers, t.kv_heads, t.head_dim, 1024
    )
    return plan, store


def _into_residual(
    t: Tiny,
    source: str,
    free: str,
    w: WeightRef,
    gain: Callable[[str, int], WeightRef],
    name: str,
    norm: dict[str, float],
) -> list[Op]:
    if not t.post_norms:
        return [Op("linear", (source,), "x", (w,), {"accumulate": 1})]
    return [
        Op("linear", (source,), free, (w,)),
        Op("rms_norm", (free,), free, (gain(name, t.hidden),), norm),
        Op("add", ("x", free), "x"),
    ]


class Oracle:
    """A plan in float64 numpy, the whole sequence at once."""

    def __init__(self, plan: Plan, weights: Weights) -> None:
        self.plan, self.weights = plan, weights

    def _get(self, ref: WeightRef) -> Array:
        w = self.weights.resolve(ref)
        return (w.dequantize() if isinstance(w, QTensor) else w).double().numpy()

    def logits(self, ids: list[int]) -> Array:
        """[T, vocab]"""
        b: dict[str, Array] = {}
        position = np.arange(len(ids))
        for op in self.plan.ops:
            a = dict(op.attrs)
            x = [b[name] for name in op.inputs if name != "ids"]
            if op.kind == "embedding":
                y = self._get(op.weights[0])[ids] * a["factor"]
            elif op.kind == "rms_norm":
                z = x[0].reshape(len(ids), int(a["heads"]), -1)
                y = z / np.sqrt((z**2).mean(-1, keepdims=True) + a["eps"]) * (self._get(op.weights[0]) + a["offset"])
                y = y.reshape(len(ids), -1)
            elif op.kind == "linear":
                y = x[0] @ self._get(op.weights[0]).T
                if len(op.weights) > 1:
                    y = y + self._get(op.weights[1])
                if a.get("accumulate"):
                    y = y + b[op.output]
            elif op.kind == "rope":
                frequencies = self.plan.constants[str(a["table"])].double().numpy()
                angle = (position[:, None] * frequencies)[:, None]
                z = x[0].reshape(len(ids), int(a["heads"]), -1).copy()
                n = len(frequencies)
                turned = (z[..., :n] + 1j * z[..., n : 2 * n]) * np.exp(1j * angle) * a["factor"]
                z[..., :n], z[..., n : 2 * n] = turned.real, turned.imag
                y = z.reshape(len(ids), -1)
            elif op.kind == "attention":
                y = self._attention(x, a, position)
            elif op.kind == "glu":
                g = x[0]
                gates = {
                    "silu": g * special.expit(g),
                    "gelu": g * special.ndtr(g),
                    "gelu_tanh": 0.5 * g * (1 + np.tanh(np.sqrt(2 / np.pi) * (g + 0.044715 * g**3))),
                }
                y = gates[str(a["activation"])] * x[1]
            elif op.kind == "add":
                y = x[0] + x[1]
            elif op.kind == "softcap":
                y = a["cap"] * np.tanh(x[0] / a["cap"])
            else:
                y = x[0]
            b[op.output] = y
        return b["logits"]

    def _attention(self, x: list[Array], a: dict[str, float | int | str], position: NDArray[np.int64]) -> Array:
        heads, kv_heads, window, cap = int(a["heads"]), int(a["kv_heads"]), int(a["window"]), float(a["softcap"])
        q = x[0].reshape(len(position), heads, -1)
        k, v = (np.repeat(t.reshape(len(position), kv_heads, -1), heads // kv_heads, axis=1) for t in x[1:])
        scores = np.einsum("thd,phd->htp", q, k) * float(a["scale"])
        if cap:
            scores = cap * np.tanh(scores / cap)
        hidden = position[None] > position[:, None]
        if window:
            hidden |= position[None] <= position[:, None] - window
        scores[:, hidden] = -np.inf
        weights = special.softmax(scores, axis=-1)
        return np.einsum("htp,phd->thd", weights, v).reshape(len(position), -1)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Tiny:
    return FAMILIES[request.param]


@pytest.fixture
def tiny_plan() -> Callable[..., tuple[Plan, Weights]]:
    """(family name or `Tiny`, seed) -> (plan, weights), float32."""

    def build(tiny: Tiny | str, seed: int = 0) -> tuple[Plan, Weights]:
        return make_plan(FAMILIES[tiny] if isinstance(tiny, str) else tiny, seed)

    return build


@pytest.fixture
def oracle() -> type[Oracle]:
    return Oracle
