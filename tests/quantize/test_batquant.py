"""Learned transforms of one layer: better than where they start on tokens not seen, the same bits again, never worse."""

import pytest
import torch
from tests.quantize.test_gptq import problem

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import batquant, gptq
from anybit.quantize.learned import rounded
from anybit.tensors import quantize
from anybit.transforms.block_affine import BlockAffine, Options
from anybit.transforms.hadamard import hadamard

FOUR = TensorFormat.parse("mxfp4")


class Layer:
    """64 inputs with two channels of outliers in one block, 48 outputs, 8 windows of 64 tokens."""

    def __init__(self, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(10, 64, 64, generator=g)
        self.x[..., [3, 17]] *= 20
        self.w = torch.randn(48, 64, generator=g)

    def outputs(self, matrix: torch.Tensor, affine: BlockAffine, windows: list[int]) -> torch.Tensor:
        y = affine.clip(affine.forward(self.x[windows]))
        return rounded(y, FOUR) @ matrix.T

    def learn(self, **options: object) -> batquant.Learned:
        return batquant.learn(
            {"w": {"w": (self.w, FOUR)}},
            lambda matrices, transforms, windows: self.outputs(matrices["w"], transforms["w"], list(windows)),
            lambda windows: self.x[list(windows)] @ self.w.T,
            8,
            Options(**options),
            "the layer",
        )

    def error(self, affine: BlockAffine) -> float:
        """Of windows that learning has not seen."""
        matrix = quantize(affine.for_weights().forward(self.w), FOUR).dequantize()
        wanted = self.x[8:] @ self.w.T
        return float((self.outputs(matrix, affine, [8, 9]) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("clip", [False, True])
def test_learned_transforms_beat_hadamard_and_rounding_on_fresh_tokens(clip: bool) -> None:
    layer = Layer()
    done = layer.learn(steps=120, rate=0.005, clip=clip)
    affine = done.transforms["w"]
    assert done.after < done.before
    x, w = layer.x[8:], layer.w
    wanted = x @ w.T

    def of(x: torch.Tensor, w: torch.Tensor) -> float:
        got = rounded(x, FOUR) @ quantize(w, FOUR).dequantize().T
        return float((got - wanted).norm() / wanted.norm())

    assert layer.error(affine) < 0.9 * of(hadamard(x, 32), hadamard(w, 32)) < of(x, w)
    assert affine.conditions().max() < 1e3
    assert (affine.kept is not None) == clip


def test_no_steps_leave_hadamard_matrices() -> None:
    done = Layer().learn(steps=0, clip=False, start="hadamard")
    assert done.before == done.after
    torch.testing.assert_close(done.transforms["w"].matrix(), hadamard(torch.eye(64), 32), rtol=1e-3, atol=1e-3)


def test_auto_begins_at_no_transform_where_that_errs_less() -> None:
    layer = Layer()
    layer.x[..., [3, 17]] *= 20
    layer.w[:, [3, 17]] /= 400  # outliers that a rotation would spread, weights that the layer hardly needs
    errors = {start: layer.learn(steps=0, clip=False, start=start) for start in ("auto", "hadamard", "identity")}
    assert errors["identity"].after < errors["hadamard"].after
    torch.testing.assert_close(errors["auto"].transforms["w"].matrix(), torch.eye(64))
    even = Layer()
    assert even.learn(steps=0, clip=False).after == even.learn(steps=0, clip=False, start="hadamard").after


def test_the_same_bits_again() -> None:
    results = [Layer().learn(steps=20, seed=seed).transforms["w"].own for seed in (0, 0, 1)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_rates_that_blow_up_leave_the_start() -> None:
    layer = Layer()
    done = layer.learn(steps=20, rate=1e6, clip=False)
    assert done.after <= done.before and torch.isfinite(done.transforms["w"].own).all()
    assert layer.error(done.transforms["w"]) < 0.2


def test_gradients_pass_rounding_straight_through() -> None:
    x = torch.randn(4, 64, requires_grad=True)
    rounded(x, FOUR).sum().backward()
    assert torch.equal(x.grad, torch.ones(4, 64))


def test_the_codes_are_those_of_gptq() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int3/g16")
    ours = batquant.quantize(weight, fmt, stats)
    assert torch.equal(ours.qtensor.codes, gptq.quantize(weight, fmt, stats).qtensor.codes)
    assert ours.report.method == "batquant"


def test_refusals() -> None:
    layer = Layer()
    with pytest.raises(RecipeError, match="blocks of 24 do not divide the 64 inputs of w"):
        layer.learn(block=24, shared=4)
    layer.x[0, 0, 0] = float("nan")
    with pytest.raises(RecipeError, match="the layer: the outputs of the block are NaN or infinite"):
        layer.learn(steps=1, held_out=0.0)
