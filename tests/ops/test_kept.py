"""Columns that multiply x as it is: against the product of the two parts, on every instruction set, whatever else x is rounded to."""

from __future__ import annotations

import pytest
import torch

from anybit import _native, ops
from anybit.formats import TensorFormat
from anybit.ops import reference
from anybit.tensors import quantize

ISAS = [name for name, _, supported in _native.isas() if supported]


def problem(m: int, n: int = 77, k: int = 320, count: int = 5, dtype=torch.bfloat16, spec: str | None = "int8/g32"):
    g = torch.Generator().manual_seed(m + n + count)
    x, w = torch.randn(m, k, generator=g), torch.randn(n, k, generator=g)
    columns = torch.randperm(k, generator=g)[:count].sort().values
    x[:, columns] *= 50
    values = torch.randn(n, count, generator=g).to(dtype)
    return x, w if spec is None else quantize(w, TensorFormat.parse(spec)), columns, values


def expected(x, w, columns, values, act):
    rounded = reference.round_activations(x.index_fill(1, columns, 0.0), act).double()
    y = rounded @ reference.dense(w, torch.float64).T
    return y + x[:, columns].double() @ values.double().T


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("spec", "act"),
    [
        ("int8/g32", "int8/row"), ("int4/g64", "int8/g32"), ("nf4/g64", "int4/row"), ("int3/g64", None),
        ("uint4/g10+z", "int8/row"), ("e4m3fn/row", "int8/row"), ("int4/g64", "bf16"), ("int4/g64", "e4m3fn/g32"),
        ("int4/g64", "int8/tensor"), ("int16/row", "int8/row"), (None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("m", [1, 3, 16, 40])
def test_is_the_sum_of_both_products(isa, spec, act, m) -> None:
    x, w, columns, values = problem(m, spec=spec)
    fmt, bias = None if act is None else TensorFormat.parse(act), torch.randn(77)
    kept = ops.keep_columns(ops.prepack(w), columns, values)
    wanted = expected(x, w, columns, values, fmt) + bias
    try:
        _native.set_isa(isa)
        first = ops.matmul(x, kept, bias, fmt)
        again = ops.matmul(x, kept, bias, fmt)  # the quick way
    finally:
        _native.set_isa("auto")
    assert torch.equal(first, again)
    # nf4's levels have 15 bits, x of bf16 may be multiplied in digits of 24
    size = x.index_fill(1, columns, 0.0).norm(dim=1).max() * reference.dense(w, torch.float32).norm(dim=1).max()
    slack = float(x[:, columns].abs().amax() * values.float().abs().sum(1).max()) * 2e-5 + float(size) * 3e-4
    assert float((first.double() - wanted).abs().max()) <= slack


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("m", "count"), [(2, 1), (20, 31), (33, 33), (70, 64), (17, 300), (5, 320)])
def test_any_number_and_type_of_columns(dtype, m, count) -> None:
    x, w, columns, values = problem(m, 50, 320, count, dtype)
    act = TensorFormat.parse("int8/row")
    wanted = expected(x, w, columns, values, act)
    found = []
    for isa in ISAS:
        try:
            _native.set_isa(isa)
            found.append(ops.matmul(x, ops.keep_columns(ops.prepack(w), columns, values), act=act))
        finally:
            _native.set_isa("auto")
    for isa, y in zip(ISAS, found, strict=True):
        size = x[:, columns].abs() @ values.float().abs().T + 1
        assert float(((y.double() - wanted).abs() / size).max()) <= 2e-5
        assert isa == "amx" or torch.equal(y, found[-1])  # tiles add in an order of their own


def test_outliers_no_longer_decide_the_scale() -> None:
    x, w, columns, _ = problem(8)
    values = reference.dense(w, torch.float32)[:, columns]
    act, true = TensorFormat.parse("int8/row"), x @ reference.dense(w, torch.float32).T
    apart = ops.matmul(x, ops.keep_columns(ops.prepack(w), columns, values), act=act)
    plain = ops.matmul(x, ops.prepack(w), act=act)
    assert float((apart - true).norm()) < 0.1 * float((plain - true).norm())


def test_what_is_no_number_stays_none() -> None:
    x, w, columns, values = problem(40)
    kept, act = ops.keep_columns(ops.prepack(w), columns, values), TensorFormat.parse("int8/row")
    x[3, columns[0]], x[5, columns[1]] = float("inf"), float("nan")
    for isa in ISAS:
        try:
            _native.set_isa(isa)
            y = ops.matmul(x, kept, act=act)
        finally:
            _native.set_isa("auto")
        finite = [bool(row.isfinite().all()) for row in y]
        assert not y[3].isfinite().any() and bool(y[5].isnan().all()), isa
        assert all(finite[:3]) and finite[4] and all(finite[6:]), isa


def test_rows_do_not_depend_on_threads_and_hardly_on_each_other() -> None:
    x, w, columns, values = problem(40, 256, 512, 9)
    kept, act = ops.keep_columns(ops.prepack(w), columns, values), TensorFormat.parse("int8/row")
    before = _native.threads()
    found = []
    try:
        for threads in (1, 2, 3):
            _native.set_threads(threads)
            found.append(ops.matmul(x, kept, act=act))
            one = torch.cat([ops.matmul(x[i : i + 1], kept, act=act) for i in range(40)])
            torch.testing.assert_close(one, found[0], rtol=1e-5, atol=1e-2)
    finally:
        _native.set_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_without_the_native_module(monkeypatch) -> None:
    x, w, columns, values = problem(4)
    act = TensorFormat.parse("int8/row")
    native = ops.matmul(x, ops.keep_columns(ops.prepack(w), columns, values), act=act)
    monkeypatch.setattr(ops.native, "load", lambda: None)
    packed = ops.keep_columns(ops.prepack(w), columns, values)
    assert packed.handle is None and packed.nbytes == w.nbytes + values.nbytes
    torch.testing.assert_close(ops.matmul(x, packed, act=act), native, rtol=1e-4, atol=1e-2)


def test_counts_its_bytes_and_shares_the_codes() -> None:
    _, w, columns, values = problem(1)
    plain = ops.prepack(w)
    assert ops.keep_columns(plain, columns, values).nbytes == plain.nbytes + 80 * 5 * 2


def test_what_does_not_fit_is_refused() -> None:
    x, w, columns, values = problem(1)
    plain = ops.prepack(w)
    for wrong, why in (
        (columns.flip(0), "ascending"), (columns.int(), "int64"), (columns[:0], "at least one"), (columns + 320, "among the weight's 320"),
        (columns[:4], r"\[77, 4\]"), (columns - 320, "among the weight's 320"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            ops.keep_columns(plain, wrong, values)
    with pytest.raises(ValueError, match="fp32, fp16 or bf16"):
        ops.keep_columns(plain, columns, values.double())
    kept = ops.keep_columns(plain, columns, values)
    with pytest.raises(ValueError, match="has none yet"):
        ops.keep_columns(kept, columns, values)
    with pytest.raises(ValueError, match="packed as tiles"):
        ops.keep_columns(ops.prepack(w, "bits"), columns, values)
    for options in ({"determinism": "invariant"}, {"multiply": "mitchell"}):
        with pytest.raises(ValueError, match="other arithmetic takes no weight with columns kept apart"):
            ops.matmul(x, kept, **options)
    for refused in (ops.TreeWeight.of, lambda w: ops.embedding(torch.zeros(1).long(), w)):
        with pytest.raises(ValueError, match="takes no weight with columns kept apart"):
            refused(kept)
    ids = torch.zeros(1, dtype=torch.int64).numpy()
    with pytest.raises(ValueError, match="keeps no columns apart"):
        _native.embedding(kept.handle, ids, 1.0, torch.empty(1, 320).numpy())
