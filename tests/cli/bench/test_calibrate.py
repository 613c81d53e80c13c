"""Tables are made of times that the test makes up; where real kernels run, only that a whole table comes out is checked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anybit.cli.bench import calibrate, limits
from anybit.cli.bench.calibrate import Checked
from anybit.ops import costs
from anybit.ops.costs import Costs, Curve
from anybit.ops.matmul import predicted

ROWS = (1, 4, 16)


def table() -> Costs:
    curve = Curve((2e-11, 3e-11, 9e-11), (1e-11,) * 3)
    elements = ("integer2", "integer4", "integer8", "word4", "bf16")
    kernels = {f"{family}/{element}": curve for family in ("int8", "exact", "bf16") for element in elements}
    overlap = {"any": (4.0,) * 3}
    return Costs("toy", "avx2", 1, 1e10, 0.0, 128, ROWS, overlap, {"int8": (1e-9,) * 3}, kernels, {})


def test_a_stretch_after_a_call_that_is_lost():
    now = [0.0]
    durations = iter([9.0, 1.0, 2.0, 3.0, 7.0])

    def call() -> None:
        now[0] += next(durations)

    assert calibrate.spent(call, 4.0, lambda: now[0]) == 2.0  # the mean of 1, 2 and 3 s
    assert next(durations) == 7.0


def test_no_rows_take_longer_than_more_rows():
    assert calibrate.rising([1.0, 5.0, 3.0, 4.0, 3.5]) == [1.0, 3.0, 3.0, 3.5, 3.5]


def test_long_calls_are_measured_once_and_more_rows_not_at_all():
    asked = []

    def measured(m: int) -> float:
        asked.append(m)
        return m * calibrate.LIMIT / 3

    found = calibrate.curve(measured, (1, 2, 4, 8, 16))
    assert asked == [1, 2, 4]
    assert found == pytest.approx([m * calibrate.LIMIT / 3 for m in (1, 2, 4, 8, 16)])


def test_scales_are_solved_for():
    weights, scales = [3e-12, 3e-12, 6e-12, 6e-12, 7e-12], [64e-12, 60e-12, 120e-12, 126e-12, 140e-12]

    def times(group: int) -> list[float]:
        return [weight + scale / group for weight, scale in zip(weights, scales, strict=True)]

    found = calibrate.solve_scales(times(128), times(32))
    assert found[0] == pytest.approx(weights, rel=0.02) and found[1] == pytest.approx(scales, rel=0.07)
    spoilt = times(32)
    spoilt[2] *= 2  # interrupted: the ratio of its neighbours holds, and the coarse scales tell the weights
    found = calibrate.solve_scales(times(128), spoilt)
    assert found[0] == pytest.approx(weights, rel=0.02) and found[1] == pytest.approx(scales, rel=0.07)
    finer_for_less = calibrate.solve_scales([5.0, 5.0, 5.0], [4.0, 4.0, 4.0])  # noise: the less is taken
    assert finer_for_less == ((4.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    for_nothing = calibrate.solve_scales([1.0], [100.0])  # nor can weights come for nothing
    assert for_nothing == ((1.0,), (0.0,))


def test_overlap_is_found_again():
    """From predictions of a known table, for each family its own."""
    rows = table().rows
    truth = replace(
        table(),
        call=25e-6,
        overlap={"any": (2.0,) * 3, "int8": (3.0, 1.5, 1.0), "exact": (1.5, 1.5, 1.0), "bf16": (5.0, 2.0, 2.0)},
    )
    problems = [(m, 2560, 3072, *fmt) for m in rows for fmt in calibrate.FIT_FORMATS]
    found = calibrate.fitted(
        replace(table(), call=25e-6), [(problem, predicted(problem, truth)) for problem in problems]
    )
    assert found.call == 25e-6
    for family in ("int8", "exact", "bf16"):
        assert found.overlap[family] == truth.overlap[family]
    between = calibrate.fitted(
        replace(table(), call=25e-6), [(problem, predicted(problem, truth)) for problem in problems if problem[0] != 4]
    )
    assert between.overlap["int8"][1] in (3.0, 1.0)  # that of the nearest rows which were measured


def test_what_takes_long_is_left_out():
    one = table()
    shapes = [(1, 64, 64), (16, 64, 64), (4096, 1 << 17, 4096)]
    assert calibrate.short(shapes, (("int4/g128", "int8/g128"),), one) == shapes[:2]
    assert calibrate.short(shapes[2:], (("int4/g128", "int8/g128"),), one) == shapes[2:]


def test_tolerance():
    def one(predicted: float) -> Checked:
        return Checked(1, 2, 3, "int4/row", None, predicted, 4.0)

    assert one(5.0).holds and one(5.0).error == 0.25 and one(3.0).holds
    assert not one(5.1).holds and not one(2.9).holds


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(limits, "LEAST_READ", 1 << 20)
    monkeypatch.setattr(limits, "last_level_cache", lambda: 1 << 18)
    monkeypatch.setattr(calibrate, "SIDE_N", 32)
    monkeypatch.setattr(calibrate, "SIDE_K", 128)
    monkeypatch.setattr(calibrate, "FIT", ((1, 32, 256), (4, 32, 256)))


def test_a_whole_table_is_measured(small, tmp_path, monkeypatch):
    module = pytest.importorskip("anybit._native")
    told = []
    with limits.threads(1):
        found = calibrate.measure(1, lambda what, done, total: told.append((done, total)), rows=(1, 4))
    assert (found.isa, found.threads, found.rows) == (module.isa(), 1, (1, 4))
    shipped = costs.shipped()[found.isa]
    assert 0 < found.call < 0.1
    assert set(found.kernels) == set(shipped.kernels) and set(found.prepare) == set(shipped.prepare)
    assert sorted({done for done, _ in told}) == list(range(told[-1][1])) and told == sorted(told)
    monkeypatch.setenv("ANYBIT_CACHE", str(tmp_path))
    try:
        assert costs.as_dict(costs.read(costs.store(found), found.isa, 1)) == costs.as_dict(found)
    finally:
        monkeypatch.undo()
        costs.forget()


def test_predictions_are_compared(small):
    pytest.importorskip("anybit._native")
    found = calibrate.check(((1, 32, 256), (3, 32, 256)))
    assert [(one.weights, one.act) for one in found[::2]] == list(calibrate.CHECK_FORMATS)
    assert all(one.predicted > 0 and one.measured > 0 for one in found)
