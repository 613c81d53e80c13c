"""Butterfly products against scipy's Hadamard matrix and numpy's FFT."""

import numpy as np
import pytest
import scipy.linalg
import torch

from anybit.formats import get
from anybit.workloads.butterfly import Butterfly, fourier, hadamard


@pytest.mark.parametrize("n", [2, 4, 32, 256])
def test_hadamard_equals_scipy(n):
    want = torch.from_numpy(scipy.linalg.hadamard(n) / np.sqrt(n))
    torch.testing.assert_close(hadamard(n).dense(), want, atol=1e-13, rtol=0)


@pytest.mark.parametrize("n", [2, 8, 64, 1024])
def test_fourier_equals_numpy(n):
    x = np.random.default_rng(n).standard_normal((3, n)) + 1j
    want = np.fft.fft(x, norm="ortho")
    np.testing.assert_allclose(fourier(n)(torch.from_numpy(x)).numpy(), want, atol=1e-12)


def test_a_single_pair_is_a_two_by_two_matrix():
    m = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(Butterfly(m.reshape(1, 1, 2, 2)).dense(), m)


def test_fewer_bits_cost_accuracy_in_order():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 256)) + 0j)
    exact = fourier(256)(x)
    errors = [((fourier(256).rounded(get(f"int{b}"))(x) - exact).norm() / exact.norm()).item() for b in (16, 8, 6, 4)]
    assert errors == sorted(errors)
    # each of 8 stages adds at most half a step of 1/127 relative to entries of 1/sqrt(2), as independent errors
    assert errors[1] < np.sqrt(8) * (0.5 / 127) * np.sqrt(2)


def test_refuses_other_lengths():
    with pytest.raises(ValueError, match="power of two"):
        hadamard(12)
    with pytest.raises(ValueError, match="vectors of 8; got 4"):
        hadamard(8)(torch.zeros(4))
    with pytest.raises(ValueError, match="twiddle must be"):
        Butterfly(torch.zeros(3, 5, 2, 2))
