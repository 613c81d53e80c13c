"""Hadamard transforms against scipy's matrices, orthonormality, and what a rotation is for."""

import math

import pytest
import scipy.linalg
import torch

from anybit.ops import native
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


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize(
    ("width", "block"),
    [(1, 1), (2, 2), (12, 4), (24, 8), (16, 16), (32, 32), (96, 12), (96, 48), (384, 96), (640, 320), (448, 224), (56, 56), (512, None),
     (768, 256), (768, None), (5632, 512), (4096, 4096), (28, 28), (192, 64), (128, 128), (2048, 1024), (2048, 2048)],
)  # fmt: skip
def test_the_compiled_transform_is_the_readable_one(width, block, seed, inverted):
    """Against float64 by the readable code; all instruction sets give the same bits."""
    module = native.load()
    if module is None:
        pytest.skip("the native module is not built (make native)")
    x = torch.randn(7, 3, width, generator=torch.Generator().manual_seed(width))
    turn = H.unrotate if inverted else H.rotate
    true = turn(x.double(), seed, block)
    before, results = module.isa(), []
    try:
        for name, _, present in module.isas():
            if present:
                module.set_isa(name)
                results.append(turn(x, seed, block))
    finally:
        module.set_isa(before)
    for got in results:
        assert torch.equal(got, results[0])
    assert got.shape == x.shape
    order = block or H.block_size(width)
    assert (results[0].double() - true).abs().max() <= 2**-24 * (4 + 2 * math.log2(order)) * x.abs().max() * math.sqrt(
        order
    )


@pytest.mark.parametrize("block", [4, 64, 256, 96])
def test_a_row_may_be_rotated_where_it_is(block):
    module = native.load()
    if module is None:
        pytest.skip("the native module is not built (make native)")
    of = H.kernel(block)
    x = torch.randn(3, 8 * block, generator=torch.Generator().manual_seed(block)).numpy()
    apart, before = x.copy(), module.isa()
    module.hadamard(x, of.small, of.order, of.block, False, None, apart)
    try:
        for name, _, present in module.isas():
            if present:
                module.set_isa(name)
                within = x.copy()
                module.hadamard(within, of.small, of.order, of.block, False, None, within)
                assert (within == apart).all(), name
    finally:
        module.set_isa(before)


def test_gradients_and_other_dtypes_take_the_readable_transform():
    x = torch.randn(4, 64, requires_grad=True)
    H.hadamard(x).sum().backward()
    torch.testing.assert_close(x.grad, H.hadamard(torch.ones(4, 64)) * 1.0)
    assert H.hadamard(torch.randn(4, 64).bfloat16()).dtype == torch.bfloat16
    assert H.hadamard(torch.empty(0, 64)).shape == (0, 64)
