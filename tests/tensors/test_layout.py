"""What must hold for layout.py. The oracle is what the definitions say of single indices, computed with plain integers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import LayoutError
from anybit.tensors.layout import (
    Digit,
    Layout,
    column_local,
    column_spatial,
    local,
    replicated,
    spatial,
)

SIZES = (1, 2, 2, 2, 3, 4, 5)


@st.composite
def layouts(draw: st.DrawFn, dims: int | None = None, axes: int = 2, replicas: bool = False) -> Layout:
    """Any layout of up to 7 digits: digits of every dimension dealt to the axes in any order."""
    dims = draw(st.integers(1, 3)) if dims is None else dims
    shape = tuple(math.prod(draw(st.lists(st.sampled_from(SIZES), max_size=2))) for _ in range(dims))
    return draw(layouts_of(shape, axes, replicas))


@st.composite
def layouts_of(draw: st.DrawFn, shape: tuple[int, ...], axes: int = 2, replicas: bool = False) -> Layout:
    """Any layout of that shape."""
    digits = []
    for dim, size in enumerate(shape):
        stride = 1
        while stride < size:
            factor = draw(st.sampled_from([n for n in range(2, size + 1) if size // stride % n == 0]))
            digits.append(Digit(dim, stride, factor, draw(st.booleans())))
            stride *= factor
    if replicas and draw(st.booleans()):
        digits.append(Digit(-1, 0, draw(st.sampled_from((2, 3)))))
    digits = draw(st.permutations(digits))
    dealt: list[list[Digit]] = [[] for _ in range(axes)]
    for digit in digits:
        dealt[draw(st.integers(0, axes - 1))].append(digit)
    return Layout(shape, tuple(map(tuple, dealt)))


def place(layout: Layout, index: tuple[int, ...]) -> tuple[int, ...]:
    """The place along every axis, from the definition of a digit."""
    found = []
    for axis in layout.axes:
        at = 0
        for d in axis:
            digit = 0 if d.dim < 0 else index[d.dim] // d.stride % d.size
            at = at * d.size + (d.size - 1 - digit if d.reverse else digit)
        found.append(at)
    return tuple(found)


def indices(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, shape)))


@settings(max_examples=80, deadline=None)
@given(layouts())
def test_places_and_indices_are_a_bijection(layout: Layout) -> None:
    where, held = layout.where(), layout.indices()
    assert where.shape == layout.shape and held.shape == layout.places
    for number, index in enumerate(indices(layout.shape)):
        at = place(layout, index)
        assert where[index] == np.ravel_multi_index(at, layout.places) if layout.places else where[index] == 0
        assert held[at] == number
    assert sorted(held.reshape(-1)) == list(range(math.prod(layout.shape)))


@settings(max_examples=60, deadline=None)
@given(layouts(replicas=True))
def test_replicas_hold_every_element_as_often(layout: Layout) -> None:
    counts = np.bincount(layout.indices().reshape(-1), minlength=math.prod(layout.shape))
    assert (counts == layout.replicas).all()
    for index in indices(layout.shape):
        assert layout.indices()[place(layout, index)] == np.ravel_multi_index(index, layout.shape)


@settings(max_examples=60, deadline=None)
@given(layouts(dims=2), layouts(dims=2))
def test_a_product_lays_tiles_out_within_elements(f: Layout, g: Layout) -> None:
    product = f * g
    assert product.shape == tuple(a * b for a, b in zip(f.shape, g.shape, strict=True))
    for index in indices(product.shape):
        outer = place(f, tuple(i // s for i, s in zip(index, g.shape, strict=True)))
        inner = place(g, tuple(i % s for i, s in zip(index, g.shape, strict=True)))
        assert place(product, index) == tuple(a * size + b for a, b, size in zip(outer, inner, g.places, strict=True))


@settings(max_examples=60, deadline=None)
@given(layouts(dims=2, replicas=True), layouts(dims=2, replicas=True), layouts(dims=2))
def test_products_associate_and_divide(f: Layout, g: Layout, h: Layout) -> None:
    assert (f * g) * h == f * (g * h)
    assert (f * g) / g == f
    assert (f * g * h) / (g * h) == f
    one = Layout((1, 1), ((), ()))
    assert f * one == one * f == f and f / f == one and f / one == f


@settings(max_examples=80, deadline=None)
@given(layouts(dims=2), layouts(dims=2))
def test_a_quotient_is_a_factor_or_there_is_none(f: Layout, g: Layout) -> None:
    try:
        outer = f / g
    except LayoutError:
        # No h can exist: its map is forced, h(i) = f(i * shape of g) // places of g, and must give f back everywhere.
        if any(a % b for a, b in zip(f.shape, g.shape, strict=True)):
            return
        if any(a % b for a, b in zip(f.places, g.places, strict=True)):
            return
        assert any(
            place(f, index)
            != tuple(
                a // size * size + b
                for a, b, size in zip(
                    place(f, tuple(i // s * s for i, s in zip(index, g.shape, strict=True))),
                    place(g, tuple(i % s for i, s in zip(index, g.shape, strict=True))),
                    g.places,
                    strict=True,
                )
            )
            for index in indices(f.shape)
        )
    else:
        assert outer * g == f


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(4,), (6,), (8,), (2, 2), (4, 2)]), st.data())
def test_equal_maps_are_equal_layouts(shape: tuple[int, ...], data: st.DataObject) -> None:
    f, g = data.draw(layouts_of(shape, axes=1)), data.draw(layouts_of(shape, axes=1))
    assert (f == g) == np.array_equal(f.where(), g.where())


def test_the_same_map_in_other_digits_is_the_same_layout() -> None:
    assert local(2, 3) * local(4, 1) != local(8, 3) and local(2, 1) * local(4, 1) == local(8, 1)
    assert Layout.parse("(a:2 b:3 c:4) -> ~a ~b | c") == Layout.parse("(a:6 c:4) -> ~a | c")
    assert Layout.parse("(a:2 b:3) -> ~a b | 1") != Layout.parse("(a:6) -> ~a | 1")
    assert spatial(1, 4) * local(1, 1) == spatial(1, 4) and hash(spatial(4)) == hash(spatial(2) * spatial(2))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_composition_applies_one_after_the_other(data: st.DataObject) -> None:
    first = data.draw(layouts(axes=2))
    second = data.draw(layouts_of(first.places))
    try:
        both = second @ first
    except LayoutError:
        return
    for index in indices(first.shape):
        assert place(both, index) == place(second, place(first, index))


@settings(max_examples=60, deadline=None)
@given(layouts(axes=2), layouts(axes=2))
def test_inverses(f: Layout, g: Layout) -> None:
    identity = Layout.linear(f.shape, f.shape)
    assert f.inverse() @ f == identity and f.inverse().inverse() == f
    assert f @ f.inverse() == Layout.linear(f.places, f.places)
    if len(f.shape) == len(g.shape):
        assert (f * g).inverse() == f.inverse() * g.inverse()
    # How data goes from one order to another of the same elements.
    if f.shape == g.shape and f.places == g.places:
        try:
            move = g @ f.inverse()
        except LayoutError:
            return
        assert np.array_equal(move.where().reshape(-1)[f.where()], g.where())


def test_composition_refuses_to_cut_a_digit() -> None:
    with pytest.raises(LayoutError, match="cut at 3 and at 4"):
        Layout.parse("(a:3 b:4) -> b a").reshape(4, 3)
    with pytest.raises(LayoutError, match=r"shape \(4, 2\) cannot follow one with the places \(8, 1\)"):
        local(4, 2) @ spatial(2, 4)


def test_primitives() -> None:
    assert [place(local(2, 3), i) for i in indices((2, 3))] == [(0, n) for n in range(6)]
    assert [place(spatial(2, 3), i) for i in indices((2, 3))] == [(n, 0) for n in range(6)]
    assert [place(column_local(2, 3), i) for i in indices((2, 3))] == [(0, n) for n in (0, 2, 4, 1, 3, 5)]
    assert [place(column_spatial(2, 3), i) for i in indices((2, 3))] == [(n, 0) for n in (0, 2, 4, 1, 3, 5)]
    many = spatial(2, 1) * replicated(2, 3)
    assert many.places == (6, 1) and many.indices().reshape(-1).tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(LayoutError, match="3 places and so has no inverse"):
        many.inverse()


@settings(max_examples=60, deadline=None)
@given(layouts(replicas=True))
def test_text_and_back(layout: Layout) -> None:
    assert Layout.parse(str(layout)) == layout


def test_text_of_products() -> None:
    assert Layout.parse("local(2, 1).spatial(8, 4).local(1, 2)") == local(2, 1) * spatial(8, 4) * local(1, 2)
    assert Layout.parse("replicated(2, 4).column_spatial(2, 2)") == replicated(2, 4) * column_spatial(2, 2)
    assert str(local(2, 1) * spatial(8, 4) * local(1, 2)) == "(a:2 b:8) (c:4 d:2) -> b c | a d"
    assert str(local(1, 1)) == "1 1 -> 1 | 1"


@pytest.mark.parametrize(("text", "message"), [
    ("(a:2 b) -> a b", "NAME:SIZE, every name once; got 'b'"),
    ("(a:2 a:2) -> a", "every name once; got 'a:2'"),
    ("(a:2) -> b", "'b' names no digit"),
    ("(a:2 b:3) -> b", "dimension 0 of 6 has .*|make 3 of its 6 indices"),
    ("(a:2) -> a | a", "no or several places"),
    ("local(2).weird(3)", "a product of local, spatial"),
    ("local(2, x)", "got 'local"),
    ("replicated(4)", "the number of dimensions and of threads"),
])  # fmt: skip
def test_unreadable_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Layout.parse(text)


def test_the_complement_fills_the_rest() -> None:
    fragment = local(2, 1) * column_spatial(4, 8) * local(2, 1)
    outer = fragment.complement((64, 32), (64, 32))
    whole = outer * fragment
    assert whole.shape == (64, 32) and whole.places == (64, 32) and whole / fragment == outer
    # Copies go row by row over the 4 x 4 grid of tiles: first over the 2 groups of threads, then 8 more slots each.
    assert outer == Layout.linear((4, 4), (2, 8))
    with pytest.raises(LayoutError, match=r"shape \(60, 32\) is not made of whole tiles with the shape \(16, 8\)"):
        fragment.complement((60, 32), (64, 32))
    with pytest.raises(LayoutError, match="does not fill the places"):
        fragment.complement((64, 32), (64, 64))


def test_regrouping_and_reordering() -> None:
    layout = Layout.parse("(a:2 b:8) (c:4 d:2) -> b c | a d")
    flat = layout.regroup(128)
    assert np.array_equal(flat.where(), layout.where()) and flat.places == (128,)
    assert np.array_equal(layout.reshape(128).where(), layout.where().reshape(-1))
    assert np.array_equal(layout.transpose(1, 0).where(), layout.where().T)
    with pytest.raises(LayoutError, match="names each once"):
        layout.transpose(0, 0)
    bits = layout.with_bits(3)
    for i, j, b in indices((16, 8, 3)):
        thread, slot = place(layout, (i, j))
        assert place(bits, (i, j, b)) == (thread, 3 * slot + b)


def test_a_reduction_leaves_its_result_in_every_place_it_came_from() -> None:
    layout = local(2, 1) * spatial(8, 4) * local(1, 2)
    rows = layout.reduce(1)
    assert rows.shape == (16, 1) and rows.places == layout.places and rows.replicas == 8
    assert np.array_equal(rows.indices(), layout.indices() // 8)


def test_questions_that_division_answers() -> None:
    """May a tile be loaded with 8-byte vectors, or as the fragment of a product?"""
    accumulator = local(2, 1) * spatial(8, 4) * local(1, 2)
    assert accumulator / local(1, 2) == local(2, 1) * spatial(8, 4)
    with pytest.raises(LayoutError, match="is not made of tiles laid out as"):
        accumulator / local(1, 4)
    with pytest.raises(LayoutError, match="is not made of tiles"):
        accumulator / local(3, 1)


def test_impossible_layouts_are_refused() -> None:
    with pytest.raises(LayoutError, match="sizes of a layout's tile are positive"):
        Layout((0,), ((),))
    with pytest.raises(LayoutError, match="beyond the 1 of the tile"):
        Layout((2,), ((Digit(0, 1, 2), Digit(1, 1, 2)),))
    with pytest.raises(LayoutError, match="cannot multiply"):
        local(2) * local(2, 2)
