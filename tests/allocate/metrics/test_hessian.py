"""Curvature against explicit matrices, the dense Hessian of torch.func, and scipy's eigensolver."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from anybit.allocate.metrics.hessian import gradients, product, top_eigenvalue, traces
from anybit.errors import RecipeError


def quadratic(size=12, seed=0):
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (a + a.T) / 2


@pytest.fixture
def network():
    """A two-layer perceptron of 143 weights in float64, its batch, and its dense Hessian over both weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10, bias=False), nn.Tanh(), nn.Linear(10, 6, bias=False)).double()
    x, y = torch.randn(40, 8, dtype=torch.float64), torch.randint(0, 6, (40,))
    names = ["0.weight", "2.weight"]
    sizes = [80, 60]

    def flat(theta):
        parts = dict(
            zip(names, (p.reshape(s) for p, s in zip(theta.split(sizes), [(10, 8), (6, 10)], strict=True)), strict=True)
        )
        return F.cross_entropy(torch.func.functional_call(net, parts, (x,)), y)

    theta = torch.cat([net.get_parameter(n).detach().flatten() for n in names])
    dense = torch.func.hessian(flat)(theta)
    tensors = {n: net.get_parameter(n) for n in names}
    return tensors, lambda k: F.cross_entropy(net(x), y), dense


def test_product_is_the_dense_hessian(network):
    tensors, loss, dense = network
    grads = gradients(loss, 0, tensors)
    v = [torch.randn_like(t) for t in tensors.values()]
    found = torch.cat([h.flatten() for h in product(grads, tensors, v)])
    torch.testing.assert_close(found, dense @ torch.cat([t.flatten() for t in v]), rtol=1e-10, atol=1e-12)


def test_basis_vectors_give_the_exact_block_traces(network):
    tensors, loss, dense = network
    grads = gradients(loss, 0, tensors)
    for name, block in (("0.weight", dense[:80, :80]), ("2.weight", dense[80:, 80:])):
        total = 0.0
        for i in range(tensors[name].numel()):
            e = {n: torch.zeros_like(t) for n, t in tensors.items()}
            e[name].view(-1)[i] = 1.0
            total += float(product(grads, tensors, list(e.values()))[list(e).index(name)].view(-1)[i])
        assert total == pytest.approx(float(block.trace()), rel=1e-10)


def test_trace_of_a_quadratic_is_unbiased_with_the_known_variance():
    a = quadratic()
    w = torch.randn(12, dtype=torch.float64, requires_grad=True)
    count = 1000
    found = traces(lambda k: 0.5 * w @ a @ w, {"w": w}, 1, probes=count, tolerance=0.0)["w"]
    # For random signs the variance of v'Av is 2 |A - diag A|_F^2.
    sigma = math.sqrt(2 * float((a - a.diag().diag()).square().sum()) / count)
    assert found.probes == count and found.size == 12
    assert abs(found.total - float(a.trace())) < 4 * sigma
    # The sample deviation of 1000 draws of a law with kurtosis below 15 is within 4 * sqrt(14/1000)/2 = 24 % of the true one.
    assert found.standard_error == pytest.approx(sigma, rel=0.24)
    assert found.mean == found.total / 12


def test_joint_probes_see_only_their_own_block(network):
    tensors, loss, dense = network
    found = traces(loss, tensors, 1, probes=250, tolerance=0.0, seed=3)
    blocks = {"0.weight": dense[:80, :80], "2.weight": dense[80:, 80:]}
    for name, block in blocks.items():
        assert abs(found[name].total - float(block.trace())) < 4.5 * found[name].standard_error


def test_activation_curvature_through_an_added_zero():
    # The head's loss as a function of its input h: per sample Hessian W'(diag p - pp')W, averaged over the batch.
    torch.manual_seed(1)
    w, h = torch.randn(5, 7, dtype=torch.float64), torch.randn(30, 7, dtype=torch.float64)
    y = torch.randint(0, 5, (30,))
    shift = torch.zeros(30, 7, dtype=torch.float64, requires_grad=True)
    p = (h @ w.T).softmax(-1)
    exact = sum(float((w.T @ (q.diag() - torch.outer(q, q)) @ w).trace()) for q in p) / 30
    found = traces(lambda k: F.cross_entropy((h + shift) @ w.T, y), {"h": shift}, 1, probes=400, tolerance=0.0)["h"]
    assert abs(found.total - exact) < 4.5 * found.standard_error


def test_stops_only_after_whole_rounds_and_enough_probes():
    w = torch.ones(4, dtype=torch.float64, requires_grad=True)
    seen = []

    def loss(k):
        seen.append(k)
        return (k + 1) * (w**2).sum()

    found = traces(loss, {"w": w}, 3, probes=100, least=8, tolerance=0.5)["w"]
    # Diagonal Hessian 2(k+1): every probe is exact, so it stops at the first whole round of three after eight probes.
    assert found.probes == 9 and seen == [0, 1, 2] * 3
    assert found.total == pytest.approx(4 * 2 * 2)


def test_same_seed_same_traces(network):
    tensors, loss, _ = network
    assert traces(loss, tensors, 1, probes=5) == traces(loss, tensors, 1, probes=5)
    assert traces(loss, tensors, 1, probes=5) != traces(loss, tensors, 1, probes=5, seed=1)


def test_top_eigenvalue_against_scipy(network):
    tensors, loss, dense = network
    for name, block in (("0.weight", dense[:80, :80]), ("2.weight", dense[80:, 80:])):
        matrix = block.numpy()
        extreme = eigsh(LinearOperator(matrix.shape, matvec=lambda v, m=matrix: m @ v), k=1, which="LM")[0][0]
        found = top_eigenvalue(loss, name, tensors[name], iterations=2000, tolerance=1e-9)
        assert found.converged
        assert found.value == pytest.approx(extreme, rel=1e-5)


def test_top_eigenvalue_keeps_its_sign_and_says_when_it_did_not_settle():
    a = torch.diag(torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64))
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert top_eigenvalue(lambda k: 0.5 * w @ a @ w, "w", w, tolerance=1e-9).value == pytest.approx(-3.0, rel=1e-8)
    twins = torch.diag(torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
    assert not top_eigenvalue(lambda k: 0.5 * w @ twins @ w, "w", w, iterations=3, tolerance=0.0).converged
    flat = top_eigenvalue(lambda k: w.sum(), "w", w)
    assert (flat.value, flat.converged) == (0.0, True)


def test_refusals():
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(RecipeError, match="finite scalar loss"):
        traces(lambda k: w * w, {"w": w}, 1)
    with pytest.raises(RecipeError, match="finite scalar loss"):
        traces(lambda k: (w * np.nan).sum(), {"w": w}, 1)
    with pytest.raises(RecipeError, match="does not depend on 'v'"):
        traces(lambda k: (w**2).sum(), {"w": w, "v": torch.ones(2, requires_grad=True)}, 1)
    with pytest.raises(RecipeError, match="at least 2 probes"):
        traces(lambda k: (w**2).sum(), {"w": w}, 1, probes=1)
