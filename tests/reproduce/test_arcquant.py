"""The layer of the experiment; the whole quick run is slow."""

import pytest

from anybit.reproduce import arcquant
from anybit.reproduce.experiment import Context


def test_one_layer_errs_as_the_paper_says():
    """Residual channels below 8-bit activations below 4-bit ones; whole blocks take more channels than the 24 outliers."""
    found = arcquant._linear()
    assert found["residual"] < found["eight"] < found["four"] and 24 / 1024 < found["channels"] < 24 * 16 / 1024


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = arcquant.run(Context(shared_data, tmp_path), quick=True)
    assert figures["residual"]["kl"] < figures["four"]["kl"]
