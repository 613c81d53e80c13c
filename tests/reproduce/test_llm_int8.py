"""The product of the experiment; the whole quick run is slow."""

import pytest

from anybit.ops import matmul
from anybit.reproduce import llm_int8
from anybit.reproduce.experiment import Context


def test_the_decomposed_product_finds_its_outliers_and_is_the_paper_s():
    found = llm_int8._product()
    assert found["columns"] == 3 and 0 < found["difference"] < 1e-5


def test_both_ways_of_taking_outliers_out_find_them():
    timed = llm_int8.Timed(8, 256)
    assert len(timed.columns) == llm_int8.OUTLIERS
    plain = matmul(timed.x, timed.plain, act=llm_int8.EIGHT)
    decoded = timed.codes.float() * timed.scale
    for way, exact in ((timed.fixed, timed.x @ timed.w.T), (timed.dynamic, timed.x @ decoded.T)):
        assert (way() - exact).norm() < (plain - exact).norm() / 3


def test_a_small_product_is_timed(tmp_path):
    found = llm_int8._speed(Context(tmp_path, tmp_path), 4, 256, 1)
    assert all(value > 0 for value in found["us"].values()) and found["over_torch"] > 0 and found["over_dynamic"] > 0


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = llm_int8.run(Context(shared_data, tmp_path), quick=True)
    checks = [check for check in llm_int8.EXPERIMENT.checks if not check.measured.startswith("speed")]
    assert len(checks) == 7 and all(check.apply(figures).passed for check in checks)
