"""Hadamard transforms against scipy's matrices, orthonormality, and what a rotation is for."""

import pytest
import scipy.linalg
import torch

from anybit.transforms import hadamard as H


@pytest.mark.parametrize("n", [1, 2, 8, 64, 256])
def test_powers_of_two_equal_scipy(n):
    x = torch.randn(5, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    want = x @ torch.from_numpy(scipy.linalg.hadamard(n)).double() / n**0.5
    torch.testing.assert_close(H.hadamard(x), want, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [12, 20, 28, 24, 40, 56, 96, 448])
def test_paley_orders_are_hadamard_matrices(n):
    m = H.hadamard(torch.eye(n, dtype=torch.float64), block=n)
    torch.testing.assert_close(m @ m.T, torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(m.abs(), torch.full((n, n), n**-0.5, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("width", "block"), [(768, 768), (576, 192), (172, 4), (7, 1), (5632, 512), (896, 896), (1536, 1536)]
)
def test_block_size_is_the_largest_known_order(width, block):
    assert H.block_size(width) == block


@pytest.mark.parametrize(("n", "seed"), [(64, None), (576, 3), (172, 4), (40, 5)])
def test_unrotate_inverts_rotate(n, seed):
    x = torch.randn(3, 2, n, dtype=torch.float64)
    torch.testing.assert_close(H.unrotate(H.rotate(x, seed), seed), x, atol=1e-12, rtol=0)


def test_a_rotated_layer_computes_the_same():
    x, w = torch.randn(9, 96, dtype=torch.float64), torch.randn(17, 96, dtype=torch.float64)
    torch.testing.assert_close(H.rotate(x, 1) @ H.rotate(w, 1).T, x @ w.T, atol=1e-12, rtol=0)
    h = x.T @ x
    r = H.rotate(x, 1)
    torch.testing.assert_close(H.rotate_hessian(h, 1), r.T @ r, atol=1e-11, rtol=0)


def test_a_single_outlier_is_spread_over_the_block():
    x = torch.zeros(256)
    x[17] = 8.0
    torch.testing.assert_close(H.rotate(x, 0).abs(), torch.full((256,), 0.5))


@pytest.mark.parametrize(
    ("width", "block", "word"), [(64, 48, "does not divide"), (36, 36, "no Hadamard matrix"), (8, 0, "does not divide")]
)
def test_refuses_unknown_orders(width, block, word):
    with pytest.raises(ValueError, match=word):
        H.hadamard(torch.zeros(width), block)
