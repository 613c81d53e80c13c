"""The layers of the experiment; the whole quick run is slow."""

import pytest

from anybit.reproduce import batquant
from anybit.reproduce.experiment import Context


def test_learned_transforms_win_on_tokens_they_have_not_seen():
    found = batquant._layer(12, 20.0, False, 20)
    assert found["learned"] < found["blocks"] < found["nearest"] and found["condition"] < 1000


def test_rotations_lose_to_none_where_two_channels_are_huge_and_learned_transforms_do_not():
    found = batquant._layer(2, 300.0, True, 0)
    assert found["rotated"] > found["blocks"] > 2 * found["nearest"]
    assert found["learned"] <= 1.01 * found["nearest"]


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = batquant.run(Context(shared_data, tmp_path), quick=True)
    assert figures["lm"]["learned"]["kl"] < figures["lm"]["blocks"]["kl"] < figures["lm"]["nearest"]["kl"]
