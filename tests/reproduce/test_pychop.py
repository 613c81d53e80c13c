"""The oracles of the experiment see errors, and find none in what it compares; the whole quick run is slow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.formats.compat.pychop import Chop
from anybit.reproduce import pychop as p
from anybit.reproduce.experiment import Context


def test_patterns_hold_ties_and_edges():
    x = p._patterns(20_001)
    assert np.isfinite(x).all() and x.min() < -1e38 and x.max() > 1e38
    half = x.astype(np.float64)[np.abs(x) < 60000]
    assert (np.abs(half - half.astype(np.float16)) == np.spacing(np.abs(half.astype(np.float16))) / 2).sum() > 2000


def test_nothing_differs_and_a_wrong_rounding_is_seen(monkeypatch):
    x = p._patterns(20_001)
    assert p._mismatches(x)["all"] == 0 and p._library_mismatches(x[:2000]) == 0
    # Ties away instead of to even: the ties among the patterns must be noticed.
    monkeypatch.setattr(p, "Chop", lambda e, m, rmode=1: Chop(e, m, 8 if rmode == 1 else rmode))
    assert p._mismatches(x)["fp16"] > 1000


def test_directed_neighbours():
    found = p._directed(np.array([1.0001, -1.0001, 1e-9, -1e-9, 7e4], np.float32))
    step = 2.0**-10
    assert found["up"][:4].tolist() == [1 + step, -1.0, 2.0**-24, -0.0] and found["up"][4] == np.inf
    assert found["down"].tolist() == [1.0, -1 - step, 0.0, -(2.0**-24), 65504.0]
    assert found["zero"].tolist() == [1.0, -1.0, 0.0, -0.0, 65504.0]


def test_stochastic_rounding():
    found = p._stochastic(50_000)
    assert found["deviations"] < 4 and found["moved"] == 0


def test_lu_reproduces_a_matrix_and_native_half_precision():
    a = p._system(torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0)), 12)[0]
    f = p.lu(a, lambda v: v)
    assert np.allclose((np.tril(f, -1) + np.eye(12)) @ np.triu(f), a)
    native = p.lu(a.astype(np.float16), lambda v: v)
    assert native.dtype == np.float16 and np.array_equal(p.lu(a, Chop(5, 10)), native.astype(float))
    assert not np.array_equal(p.lu(a, Chop(8, 7)), native.astype(float))


def test_block_oracle_sees_another_scale(monkeypatch):
    net = torch.nn.Conv2d(16, 8, 3)
    assert p._block_mismatches(net, 8) == 0
    real = p.tensors.quantize
    monkeypatch.setattr(p.tensors, "quantize", lambda w, fmt: real(w, fmt, "gaussian"))
    assert p._block_mismatches(net, 8) > 100


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = p.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures) for check in p.EXPERIMENT.checks}
    assert [name for name, o in outcomes.items() if not o.passed] == []
