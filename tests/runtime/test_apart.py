"""Products with columns apart are put together where nothing else reads their parts, and stay as they are elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anybit.models.plan import Op, WeightRef
from anybit.runtime.apart import joined


def linear(x: str, y: str, name: str, accumulate: bool = False) -> Op:
    return Op("linear", (x,), y, (WeightRef(name),), {"accumulate": 1} if accumulate else {})


def split(number: int, names: list[str]) -> list[Op]:
    table, out, negative, rest = f"columns.{number}", f"h.{number}.out", f"h.{number}.negative", f"h.{number}.rest"
    ops = [
        Op("gather", ("h",), out, (), {"table": table}),
        Op("scatter", (out,), negative, (), {"table": table, "factor": -1.0}),
        Op("add", ("h", negative), rest),
    ]
    for name in names:
        ops += [linear(rest, name, name), linear(out, name, f"{name}.outliers", accumulate=True)]
    return ops


def test_all_that_read_one_value_are_put_together() -> None:
    ops = [*split(0, ["q", "k"]), Op("add", ("h", "q"), "h"), *split(1, ["up"])]
    left, kept = joined(ops)
    assert left == [linear("h", "q", "q"), linear("h", "k", "k"), Op("add", ("h", "q"), "h"), linear("h", "up", "up")]
    assert kept == {
        WeightRef(name): (f"columns.{number}", WeightRef(f"{name}.outliers"))
        for name, number in (("q", 0), ("k", 0), ("up", 1))
    }


def test_a_plan_without_any_stays() -> None:
    ops = [linear("h", "q", "q"), Op("gather", ("q",), "r", (), {"table": "t"}), linear("r", "q", "o", accumulate=True)]
    assert joined(ops) == (ops, {})


@pytest.mark.parametrize("reader", ["h.0.out", "h.0.negative", "h.0.rest"])
def test_parts_that_something_else_reads_stay(reader: str) -> None:
    ops = [*split(0, ["q"]), Op("add", (reader, reader), "other")]
    assert joined(ops) == (ops, {})


def test_what_is_written_meanwhile_stays() -> None:
    made = split(0, ["q", "k"])
    for at, name in ((5, "h"), (1, "h.0.out"), (5, "h.0.rest")):
        ops = [*made[:at], Op("add", ("g", "g"), name), *made[at:]]
        assert joined(ops) == (ops, {})


def test_other_factors_places_and_weights_of_two_uses_stay() -> None:
    made = split(0, ["q"])
    for at, changed in (
        (1, replace(made[1], attrs={"table": "columns.0", "factor": 1.0})),
        (1, replace(made[1], attrs={"table": "columns.1", "factor": -1.0})),
        (2, replace(made[2], inputs=("g", "h.0.negative"))),
        (4, linear("h.0.out", "q", "q.outliers")),
        (4, linear("h.0.out", "r", "q.outliers", accumulate=True)),
    ):
        ops = [*made[:at], changed, *made[at + 1 :]]
        assert joined(ops) == (ops, {})
    twice = [*made, linear("g", "s", "q")]
    assert joined(twice) == (twice, {})
