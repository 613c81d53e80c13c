"""A `Plan`: a decoder lowered to a flat list of operators over named buffers.

Every buffer is a matrix [tokens, width] of float32 for one sequence; weights are named by their checkpoint names (a row slice
where a checkpoint fuses what a plan needs apart).  Executors run a plan, targets cost it, calibration walks it block by block.

The operators (`kind`; inputs -> output; weights; attributes):

| kind        | inputs    | weights  | attributes | meaning |
|-------------|-----------|----------|------------|---------|
| embedding   | ids       | table    | factor | row of the table times factor |
| rms_norm    | x         | gain     | eps, offset, heads | x / rms(x) * (gain + offset), per head of width/heads columns |
| linear      | x         | w[, b]   | accumulate, act, input_scale | x W^T + b; with accumulate=1 added to the output buffer |
| rope        | x         |          | heads, table, factor, order | turn each head's first 2*len(table) columns, half-split; in place |
| attention   | q, k, v   |          | layer, heads, kv_heads, scale, window, softcap | causal attention; appends k, v to the cache |
| glu         | gate, up  |          | activation | activation(gate) * up; activation: silu, gelu_tanh, gelu |
| add         | a, b      |          | | a + b |
| softcap     | x         |          | cap | cap * tanh(x / cap) |
| hadamard    | x         |          | block, seed, inverse | x D H, signs D of `seed` (none without), or the inverse with inverse=1 |
| block_affine | x        | shared, own[, kept] | | each block through its own matrix; clipped where activations are rounded |
| gather      | x         |          | table | the columns that a constant lists |
| residual    | x         |          | table | columns of what rounding activations leaves over of x; zeros where they are exact |
| scatter     | x         |          | table, factor | the inverse: columns times factor in their places, zeros elsewhere |
| last        | x         |          | | only the last token's row, when only the last logits are wanted; else all rows |

`rope.table` names a float32 constant of the plan: the inverse frequencies (radians a position), already scaled by whatever RoPE
scaling the model uses; `factor` multiplies both cosine and sine; `order` names a constant that lists, head by head, which entry of
the table each pair has (each its own where it is left out).  `attention.window` 0 means all earlier positions, w the last w.
`linear.act` and `input_scale` are a static format of activations and its scale (`models.static`), for executors that are asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

Value = float | int | str

ARITY = {
    "embedding": (1, 1, 1),
    "rms_norm": (1, 1, 1),
    "linear": (1, 1, 2),
    "rope": (1, 0, 0),
    "attention": (3, 0, 0),
    "glu": (2, 0, 0),
    "add": (2, 0, 0),
    "softcap": (1, 0, 0),
    "hadamard": (1, 0, 0),
    "block_affine": (1, 2, 3),
    "gather": (1, 0, 0),
    "residual": (1, 0, 0),
    "scatter": (1, 0, 0),
    "last": (1, 0, 0),
}
"""kind -> (number of inputs, least number of weights, most)."""


@dataclass(frozen=True)
class WeightRef:
    """Rows `rows` (all where None) of the checkpoint tensor `name`; a linear weight is [out, in]."""

    name: str
    rows: tuple[int, int] | None = None

    @property
    def site(self) -> str:
        """The name, with rows where it is a slice."""
        return self.name if self.rows is None else f"{self.name}[{self.rows[0]}:{self.rows[1]}]"


@dataclass(frozen=True)
class Op:
    """One operator; the module docstring lists the kinds. `inputs` and `output` are buffer names; `output` may be an input."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    weights: tuple[WeightRef, ...] = ()
    attrs: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ARITY:
            raise ValueError(f"unknown plan operator {self.kind!r}; known: {', '.join(ARITY)}")
        inputs, least, most = ARITY[self.kind]
        if len(self.inputs) != inputs or not least <= len(self.weights) <= most:
            raise ValueError(
                f"operator {self.kind!r} takes {inputs} inputs and {least} to {most} weights; "
                f"got {len(self.inputs)} and {len(self.weights)}"
            )


@dataclass(frozen=True)
class Plan:
    """A decoder as data.

    ops: in order. `blocks[i]` is the half-open range of ops of decoder layer i; what stands before block 0 embeds, what stands
    after the last block makes logits in the buffer `logits`.
    buffers: name -> width.  constants: name -> float32 vector.  kv_heads, head_dim: the cache's row of each attention layer.
    shapes: of weights that the widths of buffers do not tell.
    """

    ops: tuple[Op, ...]
    blocks: tuple[tuple[int, int], ...]
    buffers: Mapping[str, int]
    constants: Mapping[str, Tensor]
    vocab_size: int
    layers: int
    kv_heads: int
    head_dim: int
    max_positions: int
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for op in self.ops:
            for name in (*op.inputs, op.output):
                if name != "ids" and name not in self.buffers:
                    raise ValueError(f"operator {op.kind!r} uses the buffer {name!r}, which the plan does not declare")
        if self.buffers.get("logits") != self.vocab_size:
            raise ValueError(f"the buffer 'logits' must have width {self.vocab_size}; got {self.buffers.get('logits')}")

    def weight_names(self) -> list[str]:
        """Every checkpoint tensor the plan reads, once, in order of first use."""
        return list(dict.fromkeys(ref.name for op in self.ops for ref in op.weights))

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """name -> shape each checkpoint tensor must have; a fused one as many rows as its slices reach."""
        shapes: dict[str, tuple[int, ...]] = {}
        for op in self.ops:
            if not op.weights:
                continue
            if op.weights[0].name in self.shapes:
                shapes |= {ref.name: self.shapes[ref.name] for ref in op.weights}
                continue
            main, *bias = op.weights
            if op.kind == "rms_norm":
                shapes[main.name] = (self.buffers[op.inputs[0]] // int(op.attrs.get("heads", 1)),)
                continue
            rows, columns = (
                (self.vocab_size, self.buffers[op.output])
                if op.kind == "embedding"
                else (self.buffers[op.output], self.buffers[op.inputs[0]])
            )
            reach = rows if main.rows is None else max(main.rows[1], shapes.get(main.name, (0,))[0])
            shapes[main.name] = (reach, columns)
            for ref in bias:
                reach = rows if ref.rows is None else max(ref.rows[1], shapes.get(ref.name, (0,))[0])
                shapes[ref.name] = (reach,)
        return shapes
