"""Runs a `Plan` on the native engine: packed weights, one call a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit import ops
from anybit.errors import AnybitError, UnsupportedModelError
from anybit.formats import TensorFormat
from anybit.models import static
from anybit.models.interpreter import block_affine, rotation
from anybit.models.online import unsorted
from anybit.models.plan import Op, Plan, Value, WeightRef
from anybit.models.weights import INPUT_SCALE
from anybit.ops import StaticFormat
from anybit.ops.static import activations
from anybit.runtime import native
from anybit.runtime.apart import joined
from anybit.runtime.sampling import Sampling
from anybit.tensors import QTensor
from anybit.transforms.hadamard import kernel, signs

Ids = Sequence[int] | Tensor | NDArray[np.integer]
CacheKind = Literal["fp32", "fp16", "int8"]
Progress = Callable[[int, int, str], None]
"""Called with (weights packed so far, weights in all, name of the one just packed)."""

AUTO = "auto"
DEFAULT_ACTIVATION = "int8/g128"
_MOST_THREADS = 1024


class Weights(Protocol):
    """What an executor needs of a `WeightStore`."""

    def resolve(self, ref: WeightRef) -> Tensor | QTensor: ...


def _vector(w: Tensor | QTensor) -> NDArray[np.float32]:
    dense = w.dequantize() if isinstance(w, QTensor) else w
    return np.ascontiguousarray(dense.to(torch.float32).numpy().reshape(-1))


def _activation(act: str | TensorFormat | StaticFormat | None) -> tuple[bool, int, StaticFormat | None]:
    """(quantized to int8?, k's that share a scale; 0 = the row, the format of static ones)."""
    if act is None:
        return False, 0, None
    fmt = activations(act) if isinstance(act, str) else act
    if isinstance(fmt, StaticFormat):
        if str(fmt) != "int8/static":
            raise AnybitError(f"the native executor takes int8/static; run {fmt} on the torch executor")
        return True, 0, fmt
    rows, cols = fmt.block
    if str(fmt).split("/")[0] != "int8" or fmt.zero is not None or rows != 1 or cols % 32 != 0:
        raise AnybitError(
            "activations can be exact (None), 'int8/row', 'int8/gN' with N a multiple of 32 or, where the checkpoint has scales, "
            f"'int8/static'; got {str(fmt)!r}"
        )
    return True, cols, None


class NativeExecutor:
    """The C++ executor of a plan; the interface is that of `models.executor.TorchExecutor`.

    act: how inputs of quantized linear layers are rounded at run time: int8 a group of 128, int8 a row, int8/static with the scales of
    the plan, or None for exact float32 compute; "auto" is static where the plan has scales, else a group of 128.  Dense weights
    always meet exact activations.
    kv: what the KV cache holds; int8 has one scale a token and head.
    threads: a number makes a pool of that many; None shares anybit's own pool ($ANYBIT_THREADS or all cores), but takes one thread
    where tokens times bytes of weights are below 1.5 MiB: meeting at barriers would cost more than the others save.
    levels: of codebooks such as nf4: exact, or int8, which is faster and rounds them to 127 steps of the largest (`ops.prepack`).
    progress: called after each weight is packed.  One weight at a time is unpacked in memory.

    Raises `AnybitError` for impossible options and `UnsupportedModelError` for a plan that the engine cannot run.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        act: str | TensorFormat | StaticFormat | None = AUTO,
        kv: CacheKind = "fp16",
        threads: int | None = None,
        progress: Progress | None = None,
        chunk: int = 256,
        levels: ops.Levels = "exact",
    ) -> None:
        if kv not in ("fp32", "fp16", "int8"):
            raise AnybitError(f"the KV cache can be fp32, fp16 or int8; got {kv!r}")
        if threads is not None and not 1 <= threads <= _MOST_THREADS:
            raise AnybitError(f"the number of threads must be between 1 and {_MOST_THREADS}; got {threads}")
        if chunk < 1:
            raise AnybitError(f"the prefill chunk must be at least 1 token; got {chunk}")
        if levels not in ops.LEVELS:
            raise AnybitError(f"levels of codebooks are {' or '.join(ops.LEVELS)}; got {levels!r}")
        self._levels: ops.Levels = levels
        if act == AUTO:
            act = static.format_of(plan) or DEFAULT_ACTIVATION
        int8, group, self._static = _activation(act)
        if self._static is not None:
            static.check(plan, self._static)
        plan = unsorted(plan)
        self.plan = plan
        names = list(plan.buffers)
        self._index = {name: i for i, name in enumerate(names)} | {"ids": -1}
        self._tables = list(plan.constants)
        self._packed: dict[WeightRef, ops.Packed] = {}
        self._refs = list(dict.fromkeys(ref for op in plan.ops for ref in op.weights))
        self._done = 0
        # Residuals of activations rounded to a few bits: at 8 bits or exact there is next to nothing, or nothing, left over.
        idle = {op.output for op in plan.ops if op.kind == "residual"}
        run = [op for op in plan.ops if op.kind != "residual" and not idle & set(op.inputs)]
        run, self._apart = joined(run)
        native_ops = [self._lower(op, weights, progress) for op in run]
        tables = [np.ascontiguousarray(plan.constants[t].to(torch.float32).numpy()) for t in self._tables]
        shape = (plan.layers, plan.kv_heads, plan.head_dim, plan.max_positions)
        widths = [plan.buffers[name] for name in names]
        try:
            self._engine = native.module().Engine(
                widths, self._index["logits"], native_ops, tables, shape, kv, int8, group, chunk, threads or 0
            )
        except ValueError as error:
            raise UnsupportedModelError(f"the native engine cannot run this plan: {error}") from None

    def _lower(self, op: Op, weights: Weights, progress: Progress | None) -> tuple[object, ...]:
        """The tuple bindings/engine.cc reads: kind, inputs, output, matrix, vector, attributes."""
        if op.kind in ("hadamard", "gather", "scatter"):
            return self._moving(op)
        if op.kind == "block_affine":
            return self._dense(op, weights)
        attrs: dict[str, Value] = {
            key: value for key, value in op.attrs.items() if key not in (static.ACT, INPUT_SCALE)
        }
        matrix: ops.Packed | None = None
        vector: NDArray[np.float32] | None = None
        if op.kind in ("embedding", "linear"):
            matrix = self._pack(op.weights[0], weights, progress)
            if op.kind == "linear":
                attrs["exact"] = int(not matrix.integer)
                if self._static is not None and matrix.integer:
                    attrs[INPUT_SCALE] = static.of(op, self._static).scale
        if op.kind == "rms_norm" or len(op.weights) > 1:
            vector = _vector(weights.resolve(op.weights[-1]))
            self._report(op.weights[-1], progress)
        if op.kind == "rope":
            attrs["table"] = self._tables.index(str(attrs["table"]))
        inputs = [self._index[name] for name in op.inputs]
        handle = None if matrix is None else matrix.handle
        return op.kind, inputs, self._index[op.output], handle, vector, attrs

    def _moving(self, op: Op) -> tuple[object, ...]:
        """Operators without weights of the model: rotations, and columns picked out or put back."""
        source, out = self._index[op.inputs[0]], self._index[op.output]
        if op.kind != "hadamard":
            places = self.plan.constants[str(op.attrs["table"])].float().numpy()
            attrs = {"factor": op.attrs["factor"]} if op.kind == "scatter" else {}
            return op.kind, [source], out, None, np.ascontiguousarray(places), attrs
        turn = rotation(op)
        of = kernel(turn.block, bool(op.attrs.get("inverse")))
        vector = of.small
        if turn.seed is not None:
            vector = np.concatenate([vector, signs(self.plan.buffers[op.inputs[0]], turn.seed).numpy()])
        return op.kind, [source], out, None, np.ascontiguousarray(vector), of.attributes()

    def _dense(self, op: Op, weights: Weights) -> tuple[object, ...]:
        """The engine has no operator for this linear map: it is a dense matrix, exact in float32."""
        # activations of 8 bits, or exact ones, need no clipping
        matrix = ops.prepack(block_affine(op, weights).matrix().T.contiguous())
        return "linear", [self._index[op.inputs[0]]], self._index[op.output], matrix.handle, None, {"exact": 1}

    def _pack(self, ref: WeightRef, weights: Weights, progress: Progress | None) -> ops.Packed:
        if ref not in self._packed:
            packed = ops.prepack(weights.resolve(ref), levels=self._levels)
            self._report(ref, progress)
            if ref in self._apart:
                table, own = self._apart[ref]
                columns, order = self.plan.constants[table].long().sort()
                values = weights.resolve(own)
                dense = values if isinstance(values, Tensor) else values.dequantize()
                held = dense if dense.dtype in (torch.bfloat16, torch.float16) else dense.float()
                packed = ops.keep_columns(packed, columns, held[:, order])
                self._report(own, progress)
            self._packed[ref] = packed
        return self._packed[ref]

    def _report(self, ref: WeightRef, progress: Progress | None) -> None:
        self._done += 1
        if progress is not None:
            progress(self._done, len(self._refs), ref.name)

    @property
    def position(self) -> int:
        """Tokens in the cache."""
        return int(self._engine.position)

    @property
    def threads(self) -> int:
        return int(self._engine.threads)

    @property
    def ranks(self) -> int:
        """How many of the threads took part in the last step: fewer while other programs want their cores, one where there is little
        to do. Results do not depend on it."""
        return int(self._engine.ranks)

    @property
    def isa(self) -> str:
        """The instruction set the engine was built for."""
        return str(self._engine.isa)

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights; a decode step reads each once (of the embedding table one row, unless it is tied)."""
        return int(self._engine.weight_bytes)

    @property
    def cache_bytes(self) -> int:
        """Bytes of KV cache now allocated."""
        return int(self._engine.cache_bytes)

    def reset(self) -> None:
        """Forget the sequence and give the cache's memory back."""
        self._engine.reset()

    def truncate(self, n: int) -> None:
        """Keep the first `n` tokens.  Raises `AnybitError` where the sequence is shorter."""
        if not 0 <= n <= self.position:
            raise AnybitError(f"cannot truncate to {n} tokens; the sequence holds {self.position}")
        self._engine.truncate(n)

    def forward(self, ids: Ids, logits: Literal["last", "all"] = "last") -> Tensor:
        """Append `ids` [T] to the sequence; float32 logits [1, vocab] of the last token, or [T, vocab] of all.

        Raises `AnybitError` for no ids, an id outside the vocabulary, or more positions than the model has.
        """
        if logits not in ("last", "all"):
            raise AnybitError(f"logits can be 'last' or 'all'; got {logits!r}")
        return torch.from_numpy(self._engine.forward(self._checked(ids), logits == "all"))

    def next(self, ids: Ids, sampling: Sampling, history: Sequence[int] = ()) -> int:
        """`forward` and the choice of the next token in one native call; the position numbers the draw."""
        checked, seen = self._checked(ids), np.asarray(history, dtype=np.int32)
        try:
            return int(self._engine.next(checked, seen, *sampling.filters(), sampling.seed))
        except ValueError as error:
            raise AnybitError(str(error)) from None

    def _checked(self, ids: Ids) -> NDArray[np.int32]:
        array = np.ascontiguousarray(ids, dtype=np.int32).reshape(-1)
        room = self.plan.max_positions - self.position
        if array.size == 0:
            raise AnybitError("there are no tokens to run")
        if array.size > room:
            raise AnybitError(
                f"{array.size} more tokens do not fit: {self.position} of the model's {self.plan.max_positions} positions are used"
            )
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self.plan.vocab_size:
            wrong = low if low < 0 else high
            raise AnybitError(f"token id {wrong} is outside the vocabulary of {self.plan.vocab_size}")
        return array

    def enable_profile(self, on: bool = True) -> None:
        """Measure from now on (the times so far are dropped), or stop."""
        self._engine.enable_profile(on)

    def profile(self) -> Mapping[str, tuple[float, int]]:
        """Kind of operator -> (microseconds, calls), as the calling thread saw it; `wait` is time at barriers,
        `prepare` the quantization of inputs of linear layers."""
        return {kind: (microseconds, calls) for kind, microseconds, calls in self._engine.profile()}
