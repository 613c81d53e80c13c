"""Rewriting a model's weights over its fold graph: a change of the channels of a site on one side, its inverse on the other.

Tensors are rewritten when they are read, so a rewritten model takes no more memory than the tensor at hand.  Vectors (gains, biases) are
rewritten at once; they keep their dtype where it holds the new values exactly.  Matrices become float32, to be quantized next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from anybit.errors import RecipeError
from anybit.models.fold_graph import Part, Site, columns, gain, looked_up, origin, readers, stream
from anybit.models.online import Online, outliers_name
from anybit.models.plan import Plan
from anybit.models.weights import MemoryEntry, Stored, WeightStore
from anybit.transforms.hadamard import Rotation

Step = Callable[[Tensor], Tensor]
"""A change of a whole float32 tensor; it may write into it."""


class Linear(Protocol):
    """A linear map of the last dimension."""

    def forward(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class RewrittenEntry:
    """A matrix of a checkpoint with changes applied each time it is read; float32."""

    base: Stored
    steps: tuple[Step, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Always float32."""
        return torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.base.shape

    @property
    def nbytes(self) -> int:
        """Bytes it takes as float32."""
        count = 4
        for n in self.shape:
            count *= n
        return count

    def read(self, rows: tuple[int, int] | None = None) -> Tensor:
        """The rewritten tensor, or rows [a, b) of it."""
        value = _apply(self.base.read(), self.steps)
        return value if rows is None else value[rows[0] : rows[1]]


class Rewrite:
    """Collects changes of a store's tensors; `store` gives the store that has them. The base is not touched."""

    def __init__(self, base: WeightStore) -> None:
        self.base = base
        self.steps: dict[str, list[Step]] = {}
        self.added: dict[str, Stored] = {}

    def scale(self, site: Site, factors: Tensor, snug: bool = False) -> Tensor:
        """Multiply what is made by factors [units] and divide what is read by them; returns the factors used.

        snug: gains are rounded to the dtype they are stored in, and the factors become what that makes of them, so that nothing else
        than matrices grows.  RecipeError where a factor is not a positive finite number.
        """
        self._check(site, "scale", factors)
        factors = factors.to(torch.float32)
        if not bool((torch.isfinite(factors) & (factors > 0)).all()):
            raise RecipeError(f"the channels of {site.made[0].name} would be scaled by zero, infinite or NaN factors")
        gains = [part for part in site.made if part.gain]
        if snug and gains and not all(part.gain for part in site.read):
            factors = self._snug(gains[0], factors)
        else:
            for part in site.made:
                self._add(part.name, _scaling(part, factors))
        for part in site.read:
            self._add(part.name, _scaling(part, 1 / factors))
        return factors

    def permute(self, site: Site, order: Tensor) -> None:
        """Put unit `order[u]` where unit u was, on both sides and in what follows. RecipeError unless order [units] is a permutation."""
        self._check(site, "permute", order)
        self._permute(site, order)

    def reorder(self, site: Site, order: Tensor) -> None:
        """As `permute`, of pairs under RoPE; whoever calls sees to it that their angles get the order too."""
        self._check(site, "reorder", order)
        self._permute(site, order)

    def _permute(self, site: Site, order: Tensor) -> None:
        if not torch.equal(order.sort().values, torch.arange(site.units)):
            raise RecipeError(f"the order of the channels of {site.made[0].name} is no permutation")
        for part in (*site.made, *site.read, *site.follow):
            self._add(part.name, _permutation(part, order))

    def rotate(self, site: Site, matrix: Tensor) -> None:
        """Channels v [units] become v `matrix`, an orthogonal [units, units]; what reads them turns back by its transpose."""
        self._check(site, "rotate", matrix)
        for part in (*site.made, *site.read):
            self._add(part.name, _mixing(part, matrix))

    def absorb(self, part: Part, read: Sequence[Part]) -> None:
        """Move a gain into the columns that read it, zeros too; it becomes 1."""
        values = self.vector(part.name) + part.offset
        self._add(part.name, lambda value: torch.full_like(value, 1.0 - part.offset))
        for each in read:
            self._add(each.name, _scaling(each, values))

    def turn(self, name: str, dim: int, rotation: Linear, rows: tuple[int, int] | None = None) -> None:
        """Put the columns (`dim` 1) or rows (0) of a tensor, or of those of its rows, through a rotation or another linear map."""

        def step(value: Tensor) -> Tensor:
            part = value if rows is None else value[rows[0] : rows[1]]
            turned = rotation.forward(part) if dim == 1 or part.ndim == 1 else rotation.forward(part.T).T
            part.copy_(turned)
            return value

        self._add(name, step)

    def split(self, name: str, columns: Tensor) -> None:
        """Move columns (int64) of a matrix to one of their own, in its dtype where that holds them exactly, and leave zeros."""
        known = self._known(name)
        moved = _apply(self.base.entries[known].read(), tuple(self.steps.get(known, ())))[:, columns]
        cast = moved.to(self.base.entries[known].dtype)
        exact = torch.equal(cast.float(), moved)
        self.added[outliers_name(name)] = MemoryEntry((cast if exact else moved).contiguous())
        self._add(name, lambda value: value.index_fill_(1, columns, 0.0))

    def add(self, name: str, value: Tensor) -> None:
        """Store a tensor that the base does not have."""
        self.added[name] = MemoryEntry(value.contiguous())

    def vector(self, name: str) -> Tensor:
        """The values of a tensor so far, float32."""
        name = self._known(name)
        return _apply(self.base.entries[name].read(), tuple(self.steps.get(name, ())))

    def store(self, memory: bool = False) -> WeightStore:
        """The store with the changes. memory: matrices too are rewritten now, and keep their dtype where it holds the values exactly.

        RecipeError where values leave the range of float32.
        """
        entries = dict(self.base.entries)
        for name, steps in self.steps.items():
            entry = entries[name]
            if len(entry.shape) > 1 and not memory:
                entries[name] = RewrittenEntry(entry, tuple(steps))
                continue
            value = _apply(entry.read(), tuple(steps))
            if not bool(torch.isfinite(value).all()):
                raise RecipeError(f"{name} would hold infinite values; choose a smaller scale")
            cast = value.to(entry.dtype)
            exact = bool(torch.isfinite(cast).all()) and torch.equal(cast.float(), value)
            entries[name] = MemoryEntry(cast if exact else value)
        return WeightStore({**entries, **self.added}, self.base.formats, self.base.aliases, self.base.copies)

    def _snug(self, part: Part, factors: Tensor) -> Tensor:
        """Scale a gain within its own dtype; the factors that this really multiplied it by."""
        index = part.index[:, 0]
        now = self.vector(part.name)[index] + part.offset
        dtype = self.base.entries[self._known(part.name)].dtype
        stored = (now * factors - part.offset).to(dtype).float()
        found = (stored + part.offset) / now
        # A channel whose gain is zero, or would become so, is left as it is.
        usable = torch.isfinite(found) & (found > 0)
        stored = torch.where(usable, stored, now - part.offset)

        def step(value: Tensor) -> Tensor:
            return value.index_copy_(0, index, stored)

        self._add(part.name, step)
        return torch.where(usable, found, torch.ones(()))

    def _check(self, site: Site, what: str, given: Tensor) -> None:
        if what not in site.allows:
            raise RecipeError(f"channels between {site.made[0].name} and its readers cannot be changed by {what}")
        if given.shape[0] != site.units:
            raise RecipeError(f"the site at {site.made[0].name} has {site.units} channels; got {given.shape[0]} values")

    def _known(self, name: str) -> str:
        name = self.base.aliases.get(name, name)
        if name in self.base.formats:
            raise RecipeError(f"{name} is quantized ({self.base.formats[name][0]}); rewrite the original model")
        return name

    def _add(self, name: str, step: Step) -> None:
        self.steps.setdefault(self._known(name), []).append(step)


def rotate_residual(plan: Plan, rewrite: Rewrite, rotation: Rotation) -> list[Online]:
    """Rotate the residual stream: folded into every matrix that writes or reads it, and online where there is no such matrix.

    The root mean square of a vector does not change under a rotation, but a gain acts on single channels: gains move into the matrices
    that read the norm (QuaRot, arXiv 2404.00456).  Online remain a table that is the output matrix too, which goes in and comes out
    unrotated, and the norms behind the sublayers of Gemma, whose gains have no matrix after them.
    Raises RecipeError where something else than norms reads the stream.
    """
    x, tables = stream(plan), looked_up(plan)
    tied = {op.weights[0].name for op in plan.ops if op.kind == "linear"} & tables
    after: list[str] = []
    before: list[str] = []
    for i, op in enumerate(plan.ops):
        if op.kind == "embedding":
            if op.weights[0].name in tied:
                after.append(op.weights[0].name)
            else:
                rewrite.turn(op.weights[0].name, 1, rotation)
        elif op.kind == "linear" and op.output == x:
            for ref in op.weights:
                rewrite.turn(ref.name, 0, rotation, ref.rows)
        elif op.kind == "rms_norm" and op.inputs[0] == x:
            read = [plan.ops[r] for r in readers(plan, i)]
            if any(r.kind != "linear" for r in read):
                raise RecipeError(f"{op.weights[0].name} is read by something else than linear layers")
            if any(r.weights[0].name in tables for r in read):
                before.append(op.weights[0].name)
                continue
            index = torch.arange(plan.buffers[x])[:, None]
            rewrite.absorb(gain(op, index), [columns(r, index) for r in read])
            for r in read:
                rewrite.turn(r.weights[0].name, 1, rotation, r.weights[0].rows)
        elif op.kind == "add" and x in op.inputs:
            chain = origin(plan, i, next(name for name in op.inputs if name != x))
            if chain[-1].kind != "rms_norm":
                raise RecipeError("a value without a norm or a linear layer of its own is added to the residual stream")
            after.append(chain[-1].weights[0].name)
        elif op.kind == "last" and op.output == x:
            continue
        elif x in op.inputs:
            raise RecipeError(f"the operator {op.kind} reads the residual stream; it cannot be rotated")
    made = [Online(rotation, after=tuple(after))] if after else []
    return made + ([Online(rotation, before=tuple(before), inverse=True)] if before else [])


def _apply(value: Tensor, steps: tuple[Step, ...]) -> Tensor:
    value = value.to(torch.float32, copy=True)
    for step in steps:
        value = step(value)
    return value


def _of(part: Part, value: Tensor) -> Tensor:
    return value if part.rows is None else value[part.rows[0] : part.rows[1]]


def _scaling(part: Part, factors: Tensor) -> Step:
    """Multiply the channels, what is added to them included."""
    flat = part.index.reshape(-1)
    each = factors[:, None].expand(part.index.shape).reshape(-1)

    def step(value: Tensor) -> Tensor:
        inside = _of(part, value)
        kept = inside.index_select(part.dim, flat)
        shape = [-1 if d == part.dim else 1 for d in range(value.ndim)]
        inside.index_copy_(part.dim, flat, (kept + part.offset) * each.reshape(shape) - part.offset)
        return value

    return step


def _permutation(part: Part, order: Tensor) -> Step:
    to, source = part.index.reshape(-1), part.index[order].reshape(-1)

    def step(value: Tensor) -> Tensor:
        inside = _of(part, value)
        inside.index_copy_(part.dim, to, inside.index_select(part.dim, source))
        return value

    return step


def _mixing(part: Part, matrix: Tensor) -> Step:
    """Channel j becomes the sum of channels u times matrix[u, j], member by member."""

    def step(value: Tensor) -> Tensor:
        inside = _of(part, value)
        for member in range(part.index.shape[1]):
            index = part.index[:, member]
            channels = inside.index_select(part.dim, index).movedim(part.dim, -1) @ matrix.to(value)
            inside.index_copy_(part.dim, index, channels.movedim(-1, part.dim).contiguous())
        return value

    return step
