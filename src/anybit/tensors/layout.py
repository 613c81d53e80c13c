"""The algebra of layouts: where an element of a tile lies, as a value that multiplies, divides, composes and inverts.

A layout maps an index of a tile, one number a dimension, to a place, one number an axis. Register layouts have two axes, the thread and
its slot; a memory order has one, the address. Every number is split into digits (mixed radix, highest first), and a layout moves digits:

    (h:2 l:4 e:2) (c:8) -> c l | h e        a tile of 16 x 8: row = 8h + 2l + e, column = c; thread = 4c + l, slot = 2h + e

`~f` is a digit counted downwards (its place is size - 1 - f), `*4` one that no index feeds: four places hold the same element.

    local(a, b)    one thread holds the tile, row by row          spatial(a, b)   every element has a thread of its own
    f * g          every element of f becomes a tile laid out by g: shapes and axes multiply; associative, not commutative
    f / g          the h with f = h * g                           f @ g           first g, then f on the places of g
    f.inverse()    from places to indices                         f.complement(…) the h with h * g of given shape and places

Digits move whole, so an operation that would cut one at a boundary that does not divide it raises LayoutError. Layouts are kept with
neighbouring digits merged, a form that is unique: two layouts are equal exactly if they map alike.

Register layouts, their product and division are those of Tilus (arXiv 2504.12984, section 4); composition and complement play the part
they have in the layouts of CuTe. The notation of digits is that of einops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from anybit.errors import LayoutError

Indices = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Digit:
    """The digit (index // stride) % size of the index of dimension `dim`; of none, where dim is -1 (a replica).

    reverse: its place is size - 1 - digit.
    """

    dim: int
    stride: int
    size: int
    reverse: bool = False

    def cut(self, low: int, high: int) -> Digit:
        """The digits of this one between the inner strides `low` and `high`, both divisors of its size."""
        return replace(self, stride=self.stride * low if self.dim >= 0 else 0, size=high // low)


@dataclass(frozen=True)
class Layout:
    """shape: the tile. axes: the digits of every axis of the place, the highest first.

    LayoutError unless every digit of an index is placed once.
    """

    shape: tuple[int, ...]
    axes: tuple[tuple[Digit, ...], ...]

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.shape):
            raise LayoutError(f"the sizes of a layout's tile are positive; got {self.shape}")
        object.__setattr__(self, "axes", tuple(_merged(axis) for axis in self.axes))
        for dim, size in enumerate(self.shape):
            reached = 1
            for digit in sorted(d for axis in self.axes for d in axis if d.dim == dim):
                if digit.stride != reached:
                    raise LayoutError(f"dimension {dim} of {size} has no or several places for its digit at {reached}")
                reached *= digit.size
            if reached != size:
                raise LayoutError(f"the digits of dimension {dim} make {reached} of its {size} indices")
        if any(d.dim >= len(self.shape) for axis in self.axes for d in axis):
            raise LayoutError(f"a digit belongs to a dimension beyond the {len(self.shape)} of the tile")

    @staticmethod
    def linear(shape: Sequence[int], places: Sequence[int]) -> Layout:
        """Index and place have the same row-major number; LayoutError where a size cuts one of the other side."""
        shape, places = tuple(shape), tuple(places)
        if math.prod(shape) != math.prod(places):
            raise LayoutError(f"a tile of {shape} does not fill the places {places}")
        bounds = [_bounds(sizes) for sizes in (shape, places)]
        marks = _chain(bounds[0] + bounds[1], f"shape {shape} and places {places}")
        axes = []
        for i in range(len(places)):
            inner = math.prod(places[i + 1 :])
            outer = inner * places[i]
            axes.append([
                _of_number(shape, low, high)
                for low, high in reversed(list(pairwise(marks)))
                if inner <= low and high <= outer
            ])  # fmt: skip
        return Layout(shape, tuple(tuple(axis) for axis in axes))

    @staticmethod
    def parse(text: str) -> Layout:
        """From `(h:2 l:4 e:2) (c:8) -> c l | h e`, or a product of primitives such as `local(2, 1).spatial(8, 4).local(1, 2)`.

        A dimension of one digit needs no brackets; `1` is one of no digits. Primitives: local, spatial, column_local, column_spatial,
        replicated. LayoutError names what cannot be read.
        """
        return _parse_digits(text) if "->" in text else _parse_product(text)

    @property
    def places(self) -> tuple[int, ...]:
        """The number of places along every axis."""
        return tuple(math.prod(d.size for d in axis) for axis in self.axes)

    @property
    def replicas(self) -> int:
        """How many places hold each element."""
        return math.prod(d.size for axis in self.axes for d in axis if d.dim < 0)

    def indices(self) -> Indices:
        """The row-major number of the index held by every place: int64 [places…]."""
        strides = [math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))]
        total = np.zeros(self.places, np.int64)
        for at, axis in enumerate(self.axes):
            place = np.arange(self.places[at]).reshape([-1 if i == at else 1 for i in range(len(self.axes))])
            inner = 1
            for d in reversed(axis):
                digit = place // inner % d.size
                inner *= d.size
                if d.dim >= 0:
                    total += (d.size - 1 - digit if d.reverse else digit) * (d.stride * strides[d.dim])
        return total

    def where(self) -> Indices:
        """The row-major number of the place of every index: int64 [shape…]. Of replicas the first place."""
        total = np.zeros(self.shape, np.int64)
        inner = 1
        for axis in reversed(self.axes):
            for d in reversed(axis):
                if d.dim >= 0:
                    index = np.arange(self.shape[d.dim])
                    digit = index // d.stride % d.size
                    digit = d.size - 1 - digit if d.reverse else digit
                    total += inner * digit.reshape([-1 if i == d.dim else 1 for i in range(len(self.shape))])
                inner *= d.size
        return total

    def __mul__(self, inner: Layout) -> Layout:
        """Every element of this layout becomes a tile laid out by `inner`."""
        self._same_kind(inner, "multiply")
        shape = tuple(a * b for a, b in zip(self.shape, inner.shape, strict=True))
        outer = [
            tuple(replace(d, stride=d.stride * inner.shape[d.dim]) if d.dim >= 0 else d for d in axis)
            for axis in self.axes
        ]
        return Layout(shape, tuple(a + b for a, b in zip(outer, inner.axes, strict=True)))

    def __truediv__(self, inner: Layout) -> Layout:
        """The layout h with self = h * inner: LayoutError where there is none, so this asks whether `inner` tiles this layout."""
        self._same_kind(inner, "divide")
        axes = tuple(_peel(mine, theirs, self, inner) for mine, theirs in zip(self.axes, inner.axes, strict=True))
        if any(a % b for a, b in zip(self.shape, inner.shape, strict=True)):
            raise _indivisible(self, inner)
        shape = tuple(a // b for a, b in zip(self.shape, inner.shape, strict=True))
        outer = (
            tuple(replace(d, stride=d.stride // inner.shape[d.dim]) if d.dim >= 0 else d for d in axis) for axis in axes
        )
        return Layout(shape, tuple(outer))

    def __matmul__(self, first: Layout) -> Layout:
        """Where an index lies that `first` puts at a place and this layout moves on: the places of `first` are this one's shape."""
        if self.shape != first.places:
            raise LayoutError(f"a layout of shape {self.shape} cannot follow one with the places {first.places}")
        marks = []
        for dim, (size, axis) in enumerate(zip(self.shape, first.axes, strict=True)):
            mine = [m for other in self.axes for d in other if d.dim == dim for m in (d.stride, d.stride * d.size)]
            marks.append(_chain([1, size, *mine, *_bounds([d.size for d in axis])], f"{first} and then {self}"))
        axes = []
        for axis in self.axes:
            digits: list[Digit] = []
            for d in axis:
                if d.dim < 0:
                    digits.append(d)
                    continue
                inside = [m for m in marks[d.dim] if d.stride <= m <= d.stride * d.size]
                for low, high in reversed(list(pairwise(inside))):
                    source = _of_axis(first.axes[d.dim], low, high)
                    digits.append(replace(source, reverse=source.reverse != d.reverse))
            axes.append(tuple(digits))
        return Layout(first.shape, tuple(axes))

    def inverse(self) -> Layout:
        """From places to indices: inverse() @ self is the identity. LayoutError for replicas, which are no bijection."""
        if self.replicas != 1:
            raise LayoutError(f"{self} holds elements in {self.replicas} places and so has no inverse")
        digits = []
        for at, axis in enumerate(self.axes):
            inner = 1
            for d in reversed(axis):
                digits.append((d.dim, d.stride, Digit(at, inner, d.size, d.reverse)))
                inner *= d.size
        digits.sort(key=lambda entry: -entry[1])
        return Layout(self.places, tuple(tuple(d for dim, _, d in digits if dim == i) for i in range(len(self.shape))))

    def complement(self, shape: Sequence[int], places: Sequence[int]) -> Layout:
        """The row-major h with h * self of that shape and those places: how copies of this tile fill a larger one."""
        outer = []
        for what, whole, part in (("shape", shape, self.shape), ("places", places, self.places)):
            if len(whole) != len(part) or any(a % b for a, b in zip(whole, part, strict=True)):
                raise LayoutError(f"the {what} {tuple(whole)} is not made of whole tiles with the {what} {part}")
            outer.append([a // b for a, b in zip(whole, part, strict=True)])
        return Layout.linear(outer[0], outer[1])

    def reshape(self, *shape: int) -> Layout:
        """The same row-major numbers under another shape."""
        return self @ Layout.linear(shape, self.shape)

    def regroup(self, *places: int) -> Layout:
        """The same places under other axes; `regroup(n)` is one number, the last axis fastest."""
        return Layout.linear(self.places, places) @ self

    def transpose(self, *order: int) -> Layout:
        """Dimension i of the result is dimension order[i] of this layout."""
        if sorted(order) != list(range(len(self.shape))):
            raise LayoutError(f"an order of the {len(self.shape)} dimensions names each once; got {order}")
        to = {old: new for new, old in enumerate(order)}
        axes = tuple(tuple(replace(d, dim=to[d.dim]) if d.dim >= 0 else d for d in axis) for axis in self.axes)
        return Layout(tuple(self.shape[i] for i in order), axes)

    def with_bits(self, bits: int) -> Layout:
        """One more dimension, the bits of an element, lowest first, next to each other along the last axis."""
        shape, places = (1,) * len(self.shape), (1,) * (len(self.axes) - 1)
        wide = Layout((*self.shape, 1), self.axes)
        return wide * Layout.linear((*shape, bits), (*places, bits))

    def reduce(self, *dims: int) -> Layout:
        """The layout of a sum over dimensions, left behind in all places: their digits become replicas, their sizes 1 (Tilus)."""
        shape = tuple(1 if i in dims else size for i, size in enumerate(self.shape))
        axes = (tuple(Digit(-1, 0, d.size) if d.dim in dims else d for d in axis) for axis in self.axes)
        return Layout(shape, tuple(axes))

    def _same_kind(self, other: Layout, what: str) -> None:
        if len(self.shape) != len(other.shape) or len(self.axes) != len(other.axes):
            raise LayoutError(f"cannot {what} {self} and {other}: they have other numbers of dimensions or axes")

    def __str__(self) -> str:
        names: dict[tuple[int, int], str] = {}
        letters = (f"{c}{n or ''}" for n in range(99) for c in "abcdefghijklmnopqrstuvwxyz")
        dims = []
        for dim in range(len(self.shape)):
            digits = sorted((d for axis in self.axes for d in axis if d.dim == dim), key=lambda d: -d.stride)
            for d in digits:
                names[dim, d.stride] = next(letters)
            dims.append(f"({' '.join(f'{names[dim, d.stride]}:{d.size}' for d in digits)})" if digits else "1")
        axes = [
            " ".join(f"*{d.size}" if d.dim < 0 else ("~" if d.reverse else "") + names[d.dim, d.stride] for d in axis)
            for axis in self.axes
        ]
        return f"{' '.join(dims)} -> {' | '.join(axis or '1' for axis in axes)}"


def local(*shape: int) -> Layout:
    """One thread holds the tile, row by row."""
    return Layout.linear(shape, (1, math.prod(shape)))


def spatial(*shape: int) -> Layout:
    """One element a thread, threads row by row."""
    return Layout.linear(shape, (math.prod(shape), 1))


def column_local(*shape: int) -> Layout:
    """One thread holds the tile, the first dimension fastest."""
    return _columns(local(*reversed(shape)))


def column_spatial(*shape: int) -> Layout:
    """One element a thread, the first dimension fastest."""
    return _columns(spatial(*reversed(shape)))


def replicated(dims: int, threads: int) -> Layout:
    """A tile of one element that so many threads hold."""
    return Layout((1,) * dims, ((Digit(-1, 0, threads),), ()))


def _columns(layout: Layout) -> Layout:
    return layout.transpose(*reversed(range(len(layout.shape))))


PRIMITIVES = {
    "local": local,
    "spatial": spatial,
    "column_local": column_local,
    "column_spatial": column_spatial,
}


def _merged(axis: Iterable[Digit]) -> tuple[Digit, ...]:
    """Without digits of size 1, and neighbours that are neighbours in the index too as one."""
    found: list[Digit] = []
    for d in axis:
        if d.size == 1:
            continue
        last = found[-1] if found else None
        joins = last is not None and last.dim == d.dim and (d.dim < 0 or last.stride == d.stride * d.size)
        if last is not None and joins and last.reverse == d.reverse:
            found[-1] = replace(d, size=d.size * last.size)
        else:
            found.append(d)
    return tuple(found)


def _bounds(sizes: Sequence[int]) -> list[int]:
    """The products of the last 0, 1, 2, … sizes."""
    return [math.prod(sizes[i:]) for i in range(len(sizes), -1, -1)]


def _chain(marks: Iterable[int], what: str) -> list[int]:
    """The distinct marks in order; LayoutError unless each divides the next."""
    chain = sorted(set(marks))
    for low, high in pairwise(chain):
        if high % low:
            raise LayoutError(f"{what} do not fit: a digit would be cut at {low} and at {high}")
    return chain


def _of_number(shape: Sequence[int], low: int, high: int) -> Digit:
    """The digit between two strides of the row-major number of an index."""
    inner = 1
    for dim in reversed(range(len(shape))):
        if inner <= low and high <= inner * shape[dim]:
            return Digit(dim, low // inner, high // low)
        inner *= shape[dim]
    raise AssertionError("marks of a chain lie within one dimension")


def _of_axis(axis: Sequence[Digit], low: int, high: int) -> Digit:
    """The digit between two strides of a place along an axis."""
    inner = 1
    for d in reversed(axis):
        if inner <= low and high <= inner * d.size:
            return d.cut(low // inner, high // inner)
        inner *= d.size
    raise AssertionError("marks of a chain lie within one digit")


def _peel(mine: Sequence[Digit], theirs: Sequence[Digit], whole: Layout, inner: Layout) -> tuple[Digit, ...]:
    """`mine` without the digits `theirs` at its end."""
    rest, wanted = list(mine), list(theirs)
    while wanted:
        want = wanted.pop()
        have = rest.pop() if rest else Digit(-2, 0, 1)
        if (have.dim, have.stride, have.reverse) != (want.dim, want.stride, want.reverse):
            raise _indivisible(whole, inner)
        small = min(have.size, want.size)
        if max(have.size, want.size) % small:
            raise _indivisible(whole, inner)
        if have.size > small:
            rest.append(have.cut(small, have.size))
        if want.size > small:
            wanted.append(want.cut(small, want.size))
    return tuple(rest)


def _indivisible(whole: Layout, inner: Layout) -> LayoutError:
    return LayoutError(f"{whole} is not made of tiles laid out as {inner}")


def _parse_digits(text: str) -> Layout:
    left, _, right = text.partition("->")
    names: dict[str, Digit] = {}
    shape: list[int] = []
    for group in re.findall(r"\([^()]*\)|[^\s()]+", left):
        stride = 1
        for entry in reversed(group.strip("()").split()):
            if entry == "1":
                continue
            found = re.fullmatch(r"(\w+):(\d+)", entry)
            if not found or found[1] in names:
                raise LayoutError(f"a digit is written NAME:SIZE, every name once; got {entry!r} in {text!r}")
            names[found[1]] = Digit(len(shape), stride, int(found[2]))
            stride *= int(found[2])
        shape.append(stride)
    axes = []
    for axis in right.split("|"):
        digits = []
        for entry in axis.split():
            if entry == "1":
                continue
            if re.fullmatch(r"\*\d+", entry):
                digits.append(Digit(-1, 0, int(entry[1:])))
                continue
            if entry.removeprefix("~") not in names:
                raise LayoutError(f"{entry!r} names no digit of {text!r}")
            digits.append(replace(names[entry.removeprefix("~")], reverse=entry.startswith("~")))
        axes.append(tuple(digits))
    return Layout(tuple(shape), tuple(axes))


def _parse_product(text: str) -> Layout:
    result: Layout | None = None
    for factor in text.replace(" ", "").split(")."):
        found = re.fullmatch(r"(\w+)\((\d+(?:,\d+)*)\)?", factor)
        if not found or (found[1] not in PRIMITIVES and found[1] != "replicated"):
            raise LayoutError(
                f"a layout is a product of {', '.join(PRIMITIVES)} and replicated, or is written with ->; "
                f"got {factor!r} in {text!r}"
            )
        sizes = [int(n) for n in found[2].split(",")]
        if found[1] == "replicated" and len(sizes) != 2:
            raise LayoutError(f"replicated takes the number of dimensions and of threads; got {factor!r} in {text!r}")
        each = replicated(*sizes) if found[1] == "replicated" else PRIMITIVES[found[1]](*sizes)
        result = each if result is None else result * each
    assert result is not None, "splitting gives at least one factor"
    return result
