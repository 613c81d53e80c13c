"""Tables of costs are made up here; predictions are worked out by hand, and nothing is timed."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import pytest

from anybit.errors import AnybitError
from anybit.ops import costs, dispatch
from anybit.ops.costs import Costs, Curve
from anybit.ops.matmul import KERNELS, described, explain, predicted

ROWS = (1, 4, 16)


def table(**changes) -> Costs:
    """4 GB/s; 1 ns a weight for one row, 2 ns for four, 8 ns for sixteen."""
    curve = Curve((1e-9, 2e-9, 8e-9), (0.0, 0.0, 0.0))
    made = Costs(
        processor=costs.processor(),
        isa="avx2",
        threads=1,
        bandwidth=4e9,
        call=1e-5,
        widest=128,
        rows=ROWS,
        overlap={"any": (50.0,) * 3},  # so large a power is the larger of the two
        prepare={"int8": (1e-9, 4e-9, 16e-9)},
        kernels={f"{family}/integer4": curve for family in ("int8", "exact")},
        peaks={"int8": 1e12},
    )
    return replace(made, **changes)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own, and no table kept from another."""
    forget = costs.forget
    monkeypatch.setenv("ANYBIT_CACHE", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(("m", "value"), [(1, 1.0), (2, 2.0), (4, 4.0), (10, 10.0), (16, 16.0), (32, 32.0)])
def test_between_rows_and_beyond(m, value):
    assert table().at((1.0, 4.0, 16.0), m) == pytest.approx(value)


def test_seconds_by_hand():
    one = table()
    # computing: 8 * 32 weights of 1 ns; reading 128 bytes and x and y of 160 bytes takes less
    assert one.seconds("int8", "integer4", 1, 8, 32, 32, 128) == pytest.approx(1e-5 + 32e-9 + 256e-9)
    # reading 8 MB at 4 GB/s takes longer than computing
    assert one.seconds("exact", "integer4", 1, 8, 32, 32, 8_000_000) == pytest.approx(1e-5 + (8_000_000 + 160) / 4e9)
    # scales: 1 ns each, one for 32 weights, and no more is saved beyond 128 columns
    scaled = replace(one, kernels={"int8/integer4": Curve((1e-9,) * 3, (32e-9,) * 3)})
    for group, factor in ((32, 2.0), (64, 1.5), (128, 1.25), (1024, 1.25), (0, 1.25)):
        found = scaled.seconds("int8", "integer4", 1, 8, 1024, group, 0)
        assert found == pytest.approx(1e-5 + 1024e-9 + 8 * 1024 * factor * 1e-9)


def test_reading_and_computing_overlap_imperfectly():
    assert costs.combine(3.0, 4.0, 2.0) == pytest.approx(5.0)
    assert costs.combine(3.0, 4.0, 1.0) == pytest.approx(7.0)
    assert costs.combine(0.0, 0.0, 2.0) == 0.0 and costs.combine(1e-300, 1.0, 8.0) == 1.0


def test_elements_that_are_not_in_the_table():
    slow, fast = Curve((9e-9,) * 3, (0.0,) * 3), Curve((1e-9,) * 3, (0.0,) * 3)
    one = table(kernels={"int8/integer4": fast, "int8/integer8": slow, "int8/word4": Curve((2e-9,) * 3, (0.0,) * 3)})
    assert one.curve("int8", "integer3") is fast and one.curve("int8", "integer5") is slow
    assert one.curve("int8", "byte4") is slow  # nothing of its kind: the family's slowest
    assert one.curve("torch", "fp32") is slow


def test_other_numbers_of_threads():
    two = table().with_threads(2)
    assert (two.threads, two.bandwidth) == (2, 8e9)
    assert two.kernels["int8/integer4"].weight[0] == 0.5e-9 and two.peaks["int8"] == 2e12
    assert table().with_threads(8).bandwidth == pytest.approx(4e9 * 3.5)
    assert costs.as_dict(two.with_threads(1)) == costs.as_dict(table())


def test_written_and_read_again(own_cache):
    file = costs.store(table())
    assert file == costs.path("avx2", 1) and file.parent == own_cache
    assert [one.name for one in own_cache.iterdir()] == [file.name]  # no half-written file is left
    assert costs.as_dict(costs.read(file, "avx2", 1)) == costs.as_dict(table())
    found, measured = costs.of("avx2", 1)
    assert measured and found.bandwidth == 4e9
    other, measured = costs.of("avx2", 2)  # a table is for one number of threads
    assert not measured and other.bandwidth == pytest.approx(2 * costs.shipped()["avx2"].bandwidth)


def test_the_place_of_tables(monkeypatch, tmp_path):
    assert costs.path("avx2", 1) != costs.path("avx2", 1, "another processor")
    assert len({costs.path("avx2", 1), costs.path("avx512", 1), costs.path("avx2", 2)}) == 3
    monkeypatch.delenv("ANYBIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert costs.cache_folder() == tmp_path / "anybit"


def damaged(change):
    found = {"schema": costs.SCHEMA, "anybit": costs.__version__} | costs.as_dict(table())
    change(found)
    return json.dumps(found)


@pytest.mark.parametrize(("text", "reason"), [
    ("{", "cannot be read"),
    ("[]", "another version"),
    (damaged(lambda found: found.update(schema=0)), "another version"),
    (damaged(lambda found: found.update(anybit="0.0.1")), "another version"),
    (damaged(lambda found: found.pop("bandwidth")), "no table of costs"),
    (damaged(lambda found: found.update(processor="a toy")), "another processor"),
    (damaged(lambda found: found.update(bandwidth=0)), "bandwidth must be positive"),
    (damaged(lambda found: found.update(bandwidth=math.nan)), "bandwidth must be positive"),
    (damaged(lambda found: found.update(call=-1)), "call holds"),
    (damaged(lambda found: found.update(rows=[4, 1, 16])), "rows ascend"),
    (damaged(lambda found: found["overlap"].update(any=[1, 1])), "2 values for 3"),
    (damaged(lambda found: found.update(overlap={})), "says nothing"),
    (damaged(lambda found: found.update(kernels={})), "says nothing"),
    (damaged(lambda found: found["kernels"]["int8/integer4"].update(weight=[1e-9, "x", 1])), "no table of costs"),
    (damaged(lambda found: found["kernels"]["int8/integer4"].update(weight=[1e-9, -1, 1])), "costs are not negative"),
])  # fmt: skip
def test_damaged_tables_are_refused_and_the_shipped_one_used(own_cache, text, reason):
    file = costs.path("avx2", 1)
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(AnybitError, match=reason):
        costs.read(file, "avx2", 1)
    with pytest.warns(RuntimeWarning, match=r"is refused: .*doctor --calibrate") as told:
        found, measured = costs.of("avx2", 1)
    assert len(told) == 1 and not measured
    assert found.bandwidth == pytest.approx(costs.shipped()["avx2"].bandwidth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        costs.of("avx2", 1)  # told once


def test_instruction_sets_that_were_not_measured_start_from_their_like(own_cache):
    for isa, like in (("avxvnni", "avx2"), ("avx512vnni", "avx2"), ("i8mm", "neon")):
        found, measured = costs.of(isa, 1)
        assert not measured and found.isa == like
    assert costs.of("unheard of", 1)[0].isa == "scalar"


def test_the_shipped_tables_are_whole():
    found = costs.shipped()
    assert set(found) == {"amx", "avx512", "avx512bf16", "avx2", "neon", "scalar"}
    for isa, one in found.items():
        assert one.isa == isa and one.threads == 1
        wanted = {f"int8/integer{bits}" for bits in range(1, 9)} | {
            "int8/word4",
            "exact/bf16",
            "torch/fp32",
            "reference/integer4",
        }
        assert wanted <= set(one.kernels)
        # more rows take longer, but far less than in proportion with one row (one row is bound by reading)
        weights = one.kernels["int8/integer4"].weight
        assert weights[0] < weights[-1]


def use(monkeypatch, one: Costs) -> None:
    monkeypatch.setattr(costs, "of", lambda isa, threads: (one, True))
    monkeypatch.setattr(costs, "edition", costs.edition + 1)


def test_predictions_follow_the_table_and_bits_do_not(monkeypatch):
    """Where integers can be multiplied they are, whatever a machine is predicted to take: results do not depend on calibration."""
    pytest.importorskip("anybit._native")
    cheap, dear = Curve((1e-12,) * 3, (0.0,) * 3), Curve((1e-8,) * 3, (0.0,) * 3)
    problem = (4, 64, 128, "int4/g32", "int8/g32")
    for int8, exact, expected in ((cheap, dear, "native int8"), (dear, cheap, "native int8")):
        one = table(kernels={"int8/integer4": int8, "exact/integer4": exact, "reference/integer4": dear})
        use(monkeypatch, one)
        assert dispatch.choose(KERNELS, described(problem)).kernel.name == expected
        found = explain("matmul", problem)
        assert found["kernel"] == expected
        assert found["predicted_seconds"] == pytest.approx(predicted(problem, one))


def test_a_packed_weight_follows_the_table(monkeypatch):
    """What was chosen before is kept with the weight, and forgotten with the table."""
    pytest.importorskip("anybit._native")
    import torch

    from anybit import ops
    from anybit.formats import TensorFormat
    from anybit.tensors import quantize

    cheap, dear = Curve((1e-12,) * 3, (0.0,) * 3), Curve((1e-8,) * 3, (0.0,) * 3)
    x, act = torch.randn(2, 64), TensorFormat.parse("int8/g32")
    packed = ops.prepack(quantize(torch.randn(16, 64), TensorFormat.parse("int4/g32")))
    use(monkeypatch, table(kernels={"int8/integer4": cheap, "exact/integer4": dear}))
    first = ops.matmul(x, packed, act=act)
    assert torch.equal(first, ops.matmul(x, packed, act=act)) and len(packed.kernels) == 1
    use(monkeypatch, table(kernels={"int8/integer4": dear, "exact/integer4": cheap}))
    assert torch.equal(ops.matmul(x, packed, act=act), first)
    assert len(packed.kernels) == 2


def test_explain_says_whether_the_machine_was_measured():
    module = pytest.importorskip("anybit._native")
    problem = (1, 256, 256, "int4/g32", "int8/g32")
    assert explain("matmul", problem)["calibrated"] is False
    isa, threads = module.isa(), module.threads()
    costs.store(replace(table(call=0.5), isa=isa, threads=threads))
    found = explain("matmul", problem)
    assert found["calibrated"] is True and found["predicted_seconds"] > 0.5
