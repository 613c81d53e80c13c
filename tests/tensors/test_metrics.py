"""What must hold for metrics.py: the formulas, in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.tensors import max_error, mean_squared_error, relative_error, snr_db


def test_formulas() -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 7, 11))
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    assert relative_error(a, b) == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-12)
    assert snr_db(a, b) == pytest.approx(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()), rel=1e-12)
    assert mean_squared_error(a, b) == pytest.approx(((x - y) ** 2).mean(), rel=1e-12)
    assert max_error(a, b) == np.abs(x - y).max()


def test_more_than_one_chunk_and_low_precision_input() -> None:
    x = torch.ones((1 << 20) + 5, dtype=torch.bfloat16)
    y = x.clone()
    y[-1] = 0
    assert mean_squared_error(x, y) == 1 / x.numel()


def test_edges() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert relative_error(zero, zero) == 0 and relative_error(zero, one) == math.inf
    assert snr_db(one, one) == math.inf and snr_db(zero, one) == -math.inf
    assert max_error(torch.zeros(0), torch.zeros(0)) == 0 == mean_squared_error(torch.zeros(0), torch.zeros(0))
    with pytest.raises(FormatError, match="one shape"):
        relative_error(zero, torch.zeros(4))
    with pytest.raises(FormatError, match="one shape"):
        max_error(zero, torch.zeros(3, 1))
