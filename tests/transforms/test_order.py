"""Channels in the order of their importance."""

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.transforms.order import Options, dealt, descending


def test_large_first_and_ties_stay() -> None:
    assert descending(torch.tensor([1.0, 3.0, 1.0, 7.0, 3.0])).tolist() == [3, 1, 4, 0, 2]


def test_groups_take_turns() -> None:
    importance = torch.tensor([5.0, 1.0, 4.0, 6.0, 3.0, 2.0, 0.0])
    assert dealt(importance, 2).tolist() == [3, 2, 5, 6, 0, 4, 1]
    assert dealt(importance, 1).tolist() == descending(importance).tolist()
    assert sorted(dealt(torch.rand(100), 7).tolist()) == list(range(100))


@pytest.mark.parametrize("seed", range(3))
def test_dealing_helps_scales_fitted_to_what_counts_and_sorting_hurts_them(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    importance = torch.exp(3 * torch.randn(256, generator=g))
    w = torch.randn(32, 256, generator=g)
    fmt = TensorFormat.parse("int3/g16")

    def error(order: torch.Tensor) -> float:
        x, weight = w[:, order], importance[order]
        return float(((quantize(x, fmt, "mse", importance=weight).dequantize() - x).square() * weight).sum())

    plain = error(torch.arange(256))
    assert error(dealt(importance, 16)) < 0.95 * plain < plain < error(descending(importance))


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="dealt or sorted; got 'best'"):
        Options(order="best")
