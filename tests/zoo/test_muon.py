"""One optimizer of two rules: matrices step along orthogonal directions, the rest as torch's AdamW does."""

import math

import torch
from torch import nn

from anybit.zoo.muon import MuonAdamW


def test_others_step_as_adamw():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.arange(6.0)) for _ in range(2))
    a = MuonAdamW([nn.Parameter(torch.ones(2, 2))], [ours], lr=0.01, decay=0.1, pace=0.5)
    b = torch.optim.AdamW([theirs], lr=0.005, betas=(0.9, 0.98), weight_decay=0.0)
    assert a.param_groups[1]["pace"] == 0.5
    a.param_groups[1]["lr"] = 0.005  # as the loop does
    for _ in range(5):
        grad = torch.randn(6)
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        a.step()
        b.step()
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_matrices_step_by_the_orthogonal_factor():
    torch.manual_seed(0)
    p = nn.Parameter(torch.zeros(8, 16))
    optimizer = MuonAdamW([p], [], lr=0.1, decay=0.0, pace=1.0)
    p.grad = torch.randn(8, 16)
    optimizer.step()
    u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
    step = -p.detach() / (0.1 * 0.2 * math.sqrt(16))
    inside = torch.diagonal(u.T @ step @ v.T)
    assert inside.min() > 0.6 and inside.max() < 1.3
    torch.testing.assert_close(u.T @ step @ v.T, torch.diag(inside), atol=1e-3, rtol=0)


def test_weights_decay_and_what_has_no_gradient_stays():
    p, q = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = MuonAdamW([p, q], [], lr=0.1, decay=0.5, pace=1.0)
    p.grad = torch.zeros(4, 4)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((4, 4), 0.95), atol=1e-6, rtol=0)
    assert torch.equal(q.detach(), torch.ones(4, 4))


def test_its_state_goes_on():
    torch.manual_seed(0)
    grads = torch.randn(4, 5, 5)
    ends = []
    for stop in (4, 2):
        p, b = nn.Parameter(torch.zeros(5, 5)), nn.Parameter(torch.zeros(5))
        optimizer = MuonAdamW([p], [b], 0.1, 0.0, 1.0)
        for i, grad in enumerate(grads):
            if i == stop:
                state = optimizer.state_dict()
                optimizer = MuonAdamW([p], [b], 0.1, 0.0, 1.0)
                optimizer.load_state_dict(state)
            p.grad, b.grad = grad.clone(), grad[0].clone()
            optimizer.step()
        ends.append((p.detach(), b.detach()))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])
