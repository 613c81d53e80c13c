"""Block-affine transforms against dense matrices in float64, and what keeps them invertible."""

import pytest
import torch

from anybit.errors import RecipeError
from anybit.transforms.block_affine import BlockAffine, Options, start
from anybit.transforms.hadamard import hadamard

SIZES = [(8, 4), (32, 1), (1, 32), (4, 4), (2, 6)]


def random(g: int, m: int, count: int, seed: int = 0) -> BlockAffine:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.eye(g) + 0.3 * torch.randn(g, g, generator=generator) / g**0.5
    own = torch.eye(m) + 0.3 * torch.randn(count, m, m, generator=generator) / m**0.5
    return BlockAffine(shared, own)


def dense(affine: BlockAffine) -> torch.Tensor:
    return torch.block_diag(*(torch.kron(own.double(), affine.shared.double()) for own in affine.own))


@pytest.mark.parametrize(("g", "m"), SIZES)
def test_two_factors_are_the_dense_matrix(g: int, m: int) -> None:
    affine = random(g, m, 3)
    x = torch.randn(2, 5, 3 * g * m)
    wanted = x.double() @ dense(affine)
    assert affine.width == x.shape[-1] and affine.block == g * m
    assert (affine.forward(x) - wanted).norm() <= 1e-6 * wanted.norm()
    torch.testing.assert_close(affine.matrix().double(), dense(affine), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("g", "m"), SIZES)
def test_a_layer_stays_as_it_is(g: int, m: int) -> None:
    affine = random(g, m, 4).stored()
    generator = torch.Generator().manual_seed(1)
    x, w = torch.randn(20, affine.width, generator=generator), torch.randn(9, affine.width, generator=generator)
    wanted = x.double() @ w.double().T
    got = affine.forward(x).double() @ affine.for_weights().forward(w).double().T
    assert (got - wanted).norm() <= 1e-6 * wanted.norm()


def test_conditions_are_those_of_the_blocks() -> None:
    affine = random(4, 8, 5)
    blocks = dense(affine).reshape(5, 32, 5, 32)
    wanted = [float(torch.linalg.cond(blocks[i, :, i])) for i in range(5)]
    torch.testing.assert_close(affine.conditions(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)


def test_starts_are_orthogonal() -> None:
    x = torch.randn(7, 96)
    torch.testing.assert_close(start(96, Options()).forward(x), hadamard(x, 32), rtol=1e-5, atol=1e-6)
    for options in (Options(start="orthogonal"), Options(block=12, shared=3), Options(block=24, shared=24)):
        p = start(96, options).matrix()
        torch.testing.assert_close(p @ p.T, torch.eye(96), rtol=0, atol=1e-5)
    assert torch.equal(start(96, Options(start="identity")).matrix(), torch.eye(96))
    one, other = (start(96, Options(start="orthogonal"), number).own for number in (0, 1))
    assert not torch.equal(one, other)


def test_ill_conditioned_and_broken_factors_become_orthogonal() -> None:
    affine = random(4, 4, 3)
    affine.own[1, 0] = 0.0  # singular
    affine.own[2, 1, 1] = float("nan")
    safe = affine.bounded(30.0)
    assert torch.equal(safe.own[0], affine.own[0]) and torch.equal(safe.shared, affine.shared)
    for i in (1, 2):
        torch.testing.assert_close(safe.own[i] @ safe.own[i].T, torch.eye(4), rtol=0, atol=1e-5)
    assert safe.conditions().max() < 30.0**2


def test_bounds_are_shares_of_each_tokens_extremes_and_never_collapse() -> None:
    y = torch.randn(6, 64)
    kept = torch.tensor([[0.9, 1.0], [0.5, 0.01]])
    got = BlockAffine(torch.eye(8), torch.eye(4).repeat(2, 1, 1), kept).clip(y)
    for token in range(6):
        for block in range(2):
            part = y[token, 32 * block : 32 * block + 32]
            low, high = float(kept[0, block]), max(0.3, float(kept[1, block]))
            wanted = part.clamp(low * min(0.0, float(part.min())), high * max(0.0, float(part.max())))
            torch.testing.assert_close(got[token, 32 * block : 32 * block + 32], wanted)
    plain = random(8, 4, 2)
    assert plain.clip(y) is y


def test_refusals() -> None:
    for wrong in ({"block": 0}, {"shared": 5}, {"start": "best"}, {"condition": 1.0}, {"act": "mxfp5"}):
        with pytest.raises(ValueError):
            Options(**wrong)
    with pytest.raises(RecipeError, match="blocks of 32 do not divide the 172 inputs of down"):
        Options().fits(172, "down")
