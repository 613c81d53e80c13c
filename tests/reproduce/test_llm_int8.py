"""The product of the experiment; the whole quick run is slow."""

import pytest

from anybit.reproduce import llm_int8
from anybit.reproduce.experiment import Context


def test_the_decomposed_product_finds_its_outliers_and_is_the_paper_s():
    found = llm_int8._product()
    assert found["columns"] == 3 and 0 < found["difference"] < 1e-5


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = llm_int8.run(Context(shared_data, tmp_path), quick=True)
    assert all(check.apply(figures).passed for check in llm_int8.EXPERIMENT.checks)
