"""The layer of the experiment; the whole quick run is slow."""

import pytest
import torch

from anybit.ops import prepack
from anybit.reproduce import arcquant
from anybit.reproduce.experiment import Context


def test_one_layer_errs_as_the_paper_says():
    """Residual channels below 8-bit activations below 4-bit ones; whole blocks take more channels than the 24 outliers."""
    found = arcquant._linear()
    assert found["residual"] < found["eight"] < found["four"] and 24 / 1024 < found["channels"] < 24 * 16 / 1024


def test_one_matrix_and_two_give_the_same_product(monkeypatch, tmp_path):
    twice = arcquant.Twice(3, 256)
    assert len(twice.columns) == 32
    torch.testing.assert_close(twice.one(prepack(twice.whole)), twice.two(twice.parts()), rtol=0, atol=0.1)
    monkeypatch.setattr(arcquant, "EVICT", 0)
    found = arcquant._times(Context(tmp_path, tmp_path), 2, 256, 1)
    assert found["predicted"] == 1.125 and found["one"] > 0 and found["two"] > 0


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = arcquant.run(Context(shared_data, tmp_path), quick=True)
    assert figures["residual"]["kl"] < figures["four"]["kl"]
