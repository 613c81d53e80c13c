"""`TorchExecutor`: the readable reference that runs a plan for one sequence, with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from anybit.errors import AnybitError
from anybit.formats import TensorFormat
from anybit.models import static
from anybit.models.interpreter import Hook, Multiply, Setting, as_float, run
from anybit.models.plan import Plan, WeightRef
from anybit.models.weights import Weight, Weights
from anybit.ops import StaticFormat
from anybit.tensors import QTensor, quantize

Ids = Sequence[int] | Tensor


class Executor(Protocol):
    """What every executor of a plan offers: one sequence, fed in pieces."""

    @property
    def position(self) -> int:
        """Tokens in the cache."""
        ...

    def reset(self) -> None:
        """Forget the sequence."""
        ...

    def truncate(self, n: int) -> None:
        """Keep the first n tokens."""
        ...

    def forward(self, ids: Ids, logits: Literal["last", "all"] = "last") -> Tensor:
        """Append tokens; float32 logits [1 or tokens, vocab]."""
        ...


class TorchExecutor:
    """Runs a plan with plain torch in float32 buffers.

    compute_dtype: what linears multiply in.  act: format the inputs of quantized linears are rounded to, a static one with the scales of
    the plan; None is exact.
    cache_dtype: what keys and values are kept in.  keep: hold the unpacked weights between calls (as much memory as the model in
    `compute_dtype`) instead of reading them again for every call.
    multiply: computes every matrix product in arithmetic of its own (`interpreter.Multiply`).  keys, values: formats in which the
    cache holds them, packed, every head of a token a row; queries: format that queries are rounded to behind RoPE.
    AnybitError where the blocks of a format do not divide the channels of a head, and for a static format that the plan has no scales of.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Weights,
        compute_dtype: torch.dtype = torch.float32,
        act: TensorFormat | StaticFormat | None = None,
        cache_dtype: torch.dtype = torch.float32,
        keep: bool = True,
        on_linear: Hook | None = None,
        multiply: Multiply | None = None,
        keys: TensorFormat | None = None,
        values: TensorFormat | None = None,
        queries: TensorFormat | None = None,
    ) -> None:
        self.plan = plan
        if isinstance(act, StaticFormat):
            static.check(plan, act)
        for fmt in (keys, values, queries):
            if fmt is not None and (fmt.block[0] != 1 or fmt.tensor_scale or plan.head_dim % (fmt.block[1] or 1)):
                raise AnybitError(
                    f"a cache takes formats whose blocks divide the {plan.head_dim} channels of a head, without tensor scale; got {fmt}"
                )
        self.weights: Weights = _Kept(weights, compute_dtype, act is None) if keep else weights
        self.setting = Setting(compute_dtype, act, on_linear, multiply=multiply, queries=queries)
        self._cache = _Cache(plan.layers, plan.kv_heads, cache_dtype, (keys, values))
        self._position = 0

    @property
    def position(self) -> int:
        """Tokens in the cache."""
        return self._position

    @property
    def cache_bytes(self) -> tuple[int, int]:
        """Of the keys and of the values in the cache."""
        return self._cache.nbytes

    def reset(self) -> None:
        """Forget the sequence."""
        self.truncate(0)

    def truncate(self, n: int) -> None:
        """Keep the first n tokens. AnybitError where there are fewer."""
        if not 0 <= n <= self._position:
            raise AnybitError(f"cannot keep {n} of {self._position} tokens")
        self._cache.truncate(n)
        self._position = n

    @torch.no_grad()
    def forward(self, ids: Ids, logits: Literal["last", "all"] = "last") -> Tensor:
        """Append tokens to the cache; float32 logits of the last one [1, vocab], or of all [tokens, vocab].

        Raises AnybitError for no tokens, ids outside the vocabulary, or more positions than the model takes.
        """
        tokens = check_ids(ids, self.plan, self._position)
        if logits not in ("last", "all"):
            raise AnybitError(f"logits must be 'last' or 'all'; got {logits!r}")
        buffers = run(
            self.plan,
            self.weights,
            self.plan.ops,
            {"ids": tokens},
            self.setting,
            self._position,
            self._cache,
            last_only=logits == "last",
        )
        self._position += len(tokens)
        return buffers["logits"]


def check_ids(ids: Ids, plan: Plan, position: int = 0) -> Tensor:
    """Token ids as an int64 vector. AnybitError for none, one outside the vocabulary, or more positions than the model takes."""
    tokens = torch.as_tensor(ids, dtype=torch.int64)
    if tokens.ndim != 1 or len(tokens) == 0:
        raise AnybitError(f"an executor takes a vector of at least one token id; got the shape {list(tokens.shape)}")
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or most >= plan.vocab_size:
        raise AnybitError(f"token ids must be within 0 and {plan.vocab_size - 1}; got {least if least < 0 else most}")
    if position + len(tokens) > plan.max_positions:
        raise AnybitError(
            f"the model takes at most {plan.max_positions} positions; {position + len(tokens)} were asked for"
        )
    return tokens


class _Cache:
    """Keys and values [positions, kv_heads, head_dim] of each layer: in a dtype, or packed in a format."""

    def __init__(
        self, layers: int, heads: int, dtype: torch.dtype, formats: tuple[TensorFormat | None, TensorFormat | None]
    ) -> None:
        self.heads, self.dtype, self.formats = heads, dtype, formats
        self.layers: list[tuple[Weight, Weight] | None] = [None] * layers

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        held = self.layers[layer] or (None, None)
        new = self._joined(held[0], keys, self.formats[0]), self._joined(held[1], values, self.formats[1])
        self.layers[layer] = new
        return as_float(new[0]).reshape(-1, *keys.shape[1:]), as_float(new[1]).reshape(-1, *values.shape[1:])

    def _joined(self, held: Weight | None, new: Tensor, fmt: TensorFormat | None) -> Weight:
        if fmt is None:
            cast = new.to(self.dtype)
            return cast if held is None else torch.cat([as_float(held, self.dtype), cast])
        q = quantize(new.reshape(-1, new.shape[-1]), fmt)
        if not isinstance(held, QTensor):
            return q
        scale, zero = (
            None if old is None or more is None else torch.cat([old, more])
            for old, more in ((held.scale, q.scale), (held.zero, q.zero))
        )
        shape = held.shape[0] + q.shape[0], q.shape[1]
        return replace(held, codes=torch.cat([held.codes, q.codes]), scale=scale, zero=zero, shape=shape)

    def truncate(self, n: int) -> None:
        def kept(held: Weight) -> Weight:
            return held.rows(0, n * self.heads) if isinstance(held, QTensor) else held[:n]

        self.layers = [None if pair is None or n == 0 else (kept(pair[0]), kept(pair[1])) for pair in self.layers]

    @property
    def nbytes(self) -> tuple[int, int]:
        pairs = [pair for pair in self.layers if pair is not None]
        return sum(keys.nbytes for keys, _ in pairs), sum(values.nbytes for _, values in pairs)


class _Kept:
    """Weights unpacked once; quantized ones stay packed where activations are rounded too, as `linear` must tell them apart."""

    def __init__(self, inner: Weights, dtype: torch.dtype, unpack: bool) -> None:
        self.inner, self.dtype, self.unpack = inner, dtype, unpack
        self.kept: dict[WeightRef, Weight] = {}

    def resolve(self, ref: WeightRef) -> Weight:
        if ref not in self.kept:
            value = self.inner.resolve(ref)
            packed = isinstance(value, QTensor) and not self.unpack
            vector = (
                isinstance(value, Tensor) and value.ndim < 2
            )  # gains are applied in float32 whatever linears compute in
            self.kept[ref] = value if packed else as_float(value, torch.float32 if vector else self.dtype)
        return self.kept[ref]
