"""The head of the experiment; the whole quick run is slow."""

import pytest

from anybit.reproduce import block_quant_outliers
from anybit.reproduce.experiment import Context


@pytest.mark.parametrize("rope", [False, True])
def test_sorting_gains_more_the_smaller_the_blocks_and_nothing_for_a_whole_head(rope):
    share = block_quant_outliers._head(rope)["share"]
    assert share["b16"] < share["b32"] < 0.8 and share["b64"] <= 1 and share["b128"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = block_quant_outliers.run(Context(shared_data, tmp_path), quick=True)
    assert figures["outliers"]["pairs"]["b8"]["kl"] < figures["outliers"]["plain"]["b8"]["kl"]
