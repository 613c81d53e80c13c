"""`Decoder`: what distinguishes one pre-norm transformer decoder from another, as data, and its lowering to a `Plan`.

x = embedding(ids) * factor
a layer:  h = norm(x); q, k, v = linear(h); [q, k = head norms]; rope; a = attention(q, k, v); x += [norm] linear(a)
          h = norm(x); x += [norm] linear(activation(gate(h)) * up(h))
logits = [softcap] linear(norm(last(x)))
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anybit.errors import UnsupportedModelError
from anybit.models.config import Config
from anybit.models.plan import Op, Plan, WeightRef
from anybit.models.rope import Rope

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
"""Names in a config -> `activation` of the plan's `glu`."""


@dataclass(frozen=True)
class Sizes:
    """The widths every family spells alike in its config."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise UnsupportedModelError(
                f"config.json: {self.heads} attention heads cannot share {self.kv_heads} key-value heads evenly"
            )


@dataclass(frozen=True, eq=False)
class Decoder:
    """windows[i], ropes[i]: of layer i; a window of 0 sees all earlier positions; equal `Rope` objects share a table."""

    sizes: Sizes
    max_positions: int
    windows: tuple[int, ...]
    ropes: tuple[Rope, ...]
    eps: float
    activation: str
    tied: bool
    attention_scale: float
    norm_offset: float = 0.0
    embedding_factor: float = 1.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    post_norms: bool = False
    fused: bool = False
    prefix: str = "model."
    head: str = "lm_head.weight"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"config.json: the activation {self.activation!r} is not supported; supported are {', '.join(ACTIVATIONS)}"
            )

    def lower(self) -> Plan:
        """The plan; weight names are those of Hugging Face checkpoints."""
        tables: dict[str, Tensor] = {}
        names: dict[int, str] = {}
        for rope in self.ropes:
            if id(rope) not in names:
                names[id(rope)] = f"rope.{len(names)}"
                tables[names[id(rope)]] = rope.table
        embedding = WeightRef(f"{self.prefix}embed_tokens.weight")
        ops = [Op("embedding", ("ids",), "x", (embedding,), {"factor": self.embedding_factor})]
        blocks = []
        for layer in range(self.sizes.layers):
            start = len(ops)
            ops += self._attention(layer, names[id(self.ropes[layer])]) + self._mlp(layer)
            blocks.append((start, len(ops)))
        ops += [Op("last", ("x",), "x"), self._norm(f"{self.prefix}norm", "x", "h")]
        ops.append(Op("linear", ("h",), "logits", (embedding if self.tied else WeightRef(self.head),)))
        if self.logit_softcap:
            ops.append(Op("softcap", ("logits",), "logits", (), {"cap": self.logit_softcap}))
        query, key = self.sizes.heads * self.sizes.head_dim, self.sizes.kv_heads * self.sizes.head_dim
        buffers = {"x": self.sizes.hidden, "h": self.sizes.hidden, "q": query, "k": key, "v": key, "a": query}
        buffers |= {"gate": self.sizes.intermediate, "up": self.sizes.intermediate, "logits": self.sizes.vocab}
        limits = [rope.limit for rope in self.ropes if rope.limit]
        return Plan(
            ops=tuple(ops),
            blocks=tuple(blocks),
            buffers=buffers,
            constants=tables,
            vocab_size=self.sizes.vocab,
            layers=self.sizes.layers,
            kv_heads=self.sizes.kv_heads,
            head_dim=self.sizes.head_dim,
            max_positions=min([self.max_positions, *limits]),
        )

    def _attention(self, layer: int, table: str) -> list[Op]:
        base = f"{self.prefix}layers.{layer}."
        query, key = self.sizes.heads * self.sizes.head_dim, self.sizes.kv_heads * self.sizes.head_dim
        at = f"{base}self_attn."
        ops = [self._norm(f"{base}input_layernorm", "x", "h")]
        if self.fused:
            for name, start, stop in (
                ("q", 0, query),
                ("k", query, query + key),
                ("v", query + key, query + 2 * key),
            ):
                ops.append(Op("linear", ("h",), name, (WeightRef(f"{at}qkv_proj.weight", (start, stop)),)))
        else:
            ops += [self._linear(f"{at}{name}_proj", "h", name, self.qkv_bias) for name in "qkv"]
        heads = {"q": self.sizes.heads, "k": self.sizes.kv_heads}
        if self.head_norms:
            ops += [self._norm(f"{at}{name}_norm", name, name, heads[name]) for name in "qk"]
        factor = self.ropes[layer].factor
        ops += [
            Op("rope", (name,), name, (), {"heads": heads[name], "table": table, "factor": factor}) for name in "qk"
        ]
        attributes = {
            "layer": layer,
            "heads": self.sizes.heads,
            "kv_heads": self.sizes.kv_heads,
            "scale": self.attention_scale,
        }
        attributes |= {"window": self.windows[layer], "softcap": self.attention_softcap}
        ops.append(Op("attention", ("q", "k", "v"), "a", (), attributes))
        return ops + self._into_residual(f"{at}o_proj", "a", self.output_bias, f"{base}post_attention_layernorm")

    def _mlp(self, layer: int) -> list[Op]:
        base = f"{self.prefix}layers.{layer}."
        at = f"{base}mlp."
        before = "pre_feedforward_layernorm" if self.post_norms else "post_attention_layernorm"
        ops = [self._norm(base + before, "x", "h")]
        if self.fused:
            wide = self.sizes.intermediate
            for name, rows in (("gate", (0, wide)), ("up", (wide, 2 * wide))):
                ops.append(Op("linear", ("h",), name, (WeightRef(f"{at}gate_up_proj.weight", rows),)))
        else:
            ops += [self._linear(f"{at}{name}_proj", "h", name, self.mlp_bias) for name in ("gate", "up")]
        ops.append(Op("glu", ("gate", "up"), "gate", (), {"activation": ACTIVATIONS[self.activation]}))
        return ops + self._into_residual(f"{at}down_proj", "gate", self.mlp_bias, f"{base}post_feedforward_layernorm")

    def _into_residual(self, linear: str, source: str, bias: bool, norm: str) -> list[Op]:
        if not self.post_norms:
            return [self._linear(linear, source, "x", bias, accumulate=1)]
        return [self._linear(linear, source, "h", bias), self._norm(norm, "h", "h"), Op("add", ("x", "h"), "x")]

    def _linear(self, name: str, source: str, to: str, bias: bool, accumulate: int = 0) -> Op:
        weights = (WeightRef(f"{name}.weight"), *([WeightRef(f"{name}.bias")] if bias else []))
        return Op("linear", (source,), to, weights, {"accumulate": 1} if accumulate else {})

    def _norm(self, name: str, source: str, to: str, heads: int = 1) -> Op:
        attributes = {"eps": self.eps, "offset": self.norm_offset, "heads": heads}
        return Op("rms_norm", (source,), to, (WeightRef(f"{name}.weight"),), attributes)


def sizes(config: Config, head_dim: int | None = None, kv_heads: int | None = None) -> Sizes:
    """The sizes of a config; `head_dim`, `kv_heads`: the family's own defaults (else hidden / heads, and heads)."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if config.get("head_dim") is None and head_dim is None and hidden % heads:
        raise UnsupportedModelError(f"config.json: hidden_size {hidden} is not a multiple of {heads} attention heads")
    return Sizes(
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        layers=config.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", kv_heads or heads),
        head_dim=config.integer("head_dim", head_dim or hidden // heads),
        vocab=config.integer("vocab_size"),
    )
