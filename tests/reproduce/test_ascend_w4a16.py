"""The pieces of the experiment: the arithmetic of the variants, the fit, the figures of the simulation; the whole quick run is slow."""

from __future__ import annotations

import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.hardware.targets.ascend910 import Gemm, native, staged
from anybit.reproduce import ascend_w4a16 as ascend
from anybit.reproduce.experiment import Context
from anybit.tensors import quantize


def test_the_staged_product_of_a_real_weight(monkeypatch):
    found = ascend._oracle()
    assert 0 < found["error_over_bound"] < 1 and found["changed"] == 0
    real = ascend.staged_matmul
    monkeypatch.setattr(
        ascend, "staged_matmul", lambda x, q, s, workers=1: real(x, q, s, workers=workers) * (1 + workers / 64)
    )
    broken = ascend._oracle()
    assert broken["error_over_bound"] > 1 and broken["changed"] == 9


@pytest.mark.parametrize("m", [1, 5])
def test_all_variants_compute_the_same_product(m):
    n, k = 300, 512
    generator = torch.Generator().manual_seed(3)
    weight, x = torch.randn(n, k, generator=generator), torch.randn(m, k, generator=generator)
    q = quantize(weight, TensorFormat.parse("int4/g128"))
    true = x.double() @ q.dequantize().double().T
    halves = ascend.Halves.of(weight)
    for size in (k, 100 * k + 7, n * k):
        y = halves.product(x, torch.zeros(size))
        assert torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)
    assert torch.equal(halves.widen(40, 60, torch.zeros(20 * k)), q.rows(40, 60).dequantize())
    cases = ascend._cases(n, k, m, 3)
    assert set(cases) == {"fp32", "fused", "ring in L2", "ring beyond L2", "whole"}
    for name in ("fused", "ring in L2", "whole"):
        assert torch.allclose(cases[name](), ops.matmul(x, ops.prepack(q)), rtol=1e-4, atol=1e-4)


def test_the_fit_meets_the_published_figure_and_the_rest_follows(tmp_path):
    gemms = [Gemm(16, 1024, 2048)]
    machine = ascend._fitted(gemms)
    gain = native(machine, gemms[0]).makespan / staged(machine, gemms[0]).makespan
    assert gain == pytest.approx(1.48, abs=0.03) or machine.l2 / machine.hbm > 7.9
    found = ascend._simulated(Context(tmp_path, tmp_path), ((1024, 4096), (4096, 4096)))
    few, square = found["shapes"]["1024 x 4096"], found["shapes"]["4096 x 4096"]
    assert few["split_gain"] > 1.3 and square["split_gain"] == 1.0
    assert found["over_fp16"] == pytest.approx(1.48, abs=0.03)
    assert found["round_trip"] > 0.3 > 0.05 > found["unpacking"]


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = ascend.run(Context(shared_data, tmp_path), quick=True)
    outcomes = {check.description: check.apply(figures) for check in ascend.EXPERIMENT.checks}
    assert all(o.passed for name, o in outcomes.items() if "simulated" in name or "staged" in name)
