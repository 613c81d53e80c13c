"""What must hold for ladder.py: neighbours part where they are told to, whatever the kind of array."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.formats.ladder import Ladder
from anybit.formats.rounding import MODES, RANDOM_MODES


def test_middles_of_ones_own() -> None:
    ladder = Ladder(np.array([0.0, 1.0, 10.0]), np.array([0.1, 9.0]))
    x = np.array([-1, 0.05, 0.1, 0.2, 8.0, 9.0, 9.5, 99.0])
    assert ladder.index(np, x, "nearest_even", None).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert ladder.index(np, x, "nearest_up", None).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert ladder.index(np, x, "nearest_down", None).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_odd_codes_may_be_told() -> None:
    ladder = Ladder(np.array([0.0, 1.0, 2.0]), odd=np.array([True, False, True]))
    assert ladder.index(np, np.array([0.5, 1.0, 1.5]), "odd", None).tolist() == [0, 1, 2]
    assert ladder.index(np, np.array([0.5, 1.5]), "nearest_even", None).tolist() == [1, 1]


@pytest.mark.parametrize("count", [5, 40])
@pytest.mark.parametrize("mode", ["nearest_even", "nearest_zero", "odd", "toward_zero", "stochastic"])
def test_torch_and_numpy_agree_for_few_and_many_values(count: int, mode: str) -> None:
    rng = np.random.default_rng(0)
    ladder = Ladder(np.sort(rng.standard_normal(count)))
    x = rng.standard_normal((7, 9)).astype(np.float32)
    assert np.array_equal(ladder.index(np, x, mode, 3), ladder.index(torch, torch.from_numpy(x), mode, 3).numpy())


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in RANDOM_MODES])
@pytest.mark.parametrize("levels", [[-3.0, -1, 0, 0.5, 2], [-1.0, 1, 4], [0.0, 1, 10, 100], [-2.0, -0.25, 3]])
def test_thresholds_decide_every_mode_as_index_does(levels: list[float], mode: str) -> None:
    ladder = Ladder(np.array(levels))
    near = np.array([*levels, *ladder.middles, 0.0, -0.0, 1e-45, -1e-45, 1e30, -1e30], np.float32)
    x = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))])
    counted = (x[:, None] > ladder.thresholds(mode)).sum(axis=1)
    assert np.array_equal(counted, ladder.index(np, x, mode, None))
