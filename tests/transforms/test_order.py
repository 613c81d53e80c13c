"""Channels in the order of their importance."""

import torch

from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.transforms.order import descending


def test_large_first_and_ties_stay() -> None:
    assert descending(torch.tensor([1.0, 3.0, 1.0, 7.0, 3.0])).tolist() == [3, 1, 4, 0, 2]


def test_scales_fitted_to_groups_of_like_importance_err_less_where_it_counts() -> None:
    g = torch.Generator().manual_seed(0)
    importance = torch.exp(3 * torch.randn(128, generator=g))
    w = torch.randn(32, 128, generator=g)
    fmt = TensorFormat.parse("int3/g16")

    def error(order: torch.Tensor) -> float:
        x, weight = w[:, order], importance[order]
        return float(((quantize(x, fmt, "mse", importance=weight).dequantize() - x).square() * weight).sum())

    assert error(descending(importance)) < 0.9 * error(torch.arange(128))
