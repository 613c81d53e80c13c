"""The scale search against evaluation of every exponent on the tokens themselves."""

import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.transforms import awq, table

FMT = TensorFormat.parse("int3/g16")


def rounding(w: torch.Tensor) -> torch.Tensor:
    return quantize(w, FMT).dequantize()


def problem(columns: int = 32) -> tuple[torch.Tensor, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, columns, generator=g) * torch.exp(1.2 * torch.randn(columns, generator=g))
    return x, [torch.randn(n, columns, generator=g) for n in (12, 20)]


def test_the_least_error_on_the_tokens_is_found() -> None:
    x, weights = problem()
    index = torch.arange(32)[:, None]
    mean = x.abs().mean(0)
    found = awq.search(mean, index, weights, 2 * x.T @ x / len(x), rounding)
    losses = []
    for step in range(20):
        s = mean.pow(step / 20).clamp(min=1e-4)
        s = s / (s.max() * s.min()).sqrt()
        losses.append(sum(float(((x / s) @ rounding(w * s).T - x @ w.T).square().sum()) for w in weights))
    assert found.exponent == losses.index(min(losses)) / 20 > 0
    assert found.ratio == pytest.approx(min(losses) / losses[0], rel=1e-3) and found.ratio < 0.9


def test_members_of_a_unit_share_their_scale() -> None:
    x, weights = problem()
    index = torch.stack([torch.arange(16), torch.arange(16) + 16], 1)
    mean = x.abs().mean(0)[index].mean(1)
    found = awq.search(mean, index, weights, 2 * x.T @ x / len(x), rounding, steps=5)
    assert found.scales.shape == (16,) and found.ratio <= 1
    assert float(found.scales.max() * found.scales.min()) == pytest.approx(1, rel=1e-5)


def test_a_dead_channel_keeps_the_scales_finite() -> None:
    scales = awq.scales_for(torch.tensor([0.0, 1.0, 5.0]), 0.5)
    assert bool(torch.isfinite(scales).all()) and bool((scales > 0).all())


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="transform awq: 1 to 1000 exponents"):
        table.get("awq").parse({"steps": 0})
    with pytest.raises(RecipeError, match="unknown transform 'spin'; known: smooth, awq, permute"):
        table.get("spin")
