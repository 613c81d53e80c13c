"""What must hold for scale_search.py: close to exhaustive search, never worse than absmax, and guided by importance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors import quantize, relative_error

parse = TensorFormat.parse


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SEARCHED = ["int2/g16", "int3/g16", "int4/g16", "ternary/g16", "bipolar1/g16", "nf4/g16", "e2m1/g16", "int4n/g16"]


@pytest.mark.parametrize("spec", SEARCHED)
def test_the_search_comes_close_to_trying_every_fp16_scale(spec: str) -> None:
    fmt = parse(spec)
    x = gaussian(24, 16, seed=5)
    every = np.arange(0x0400, 0x4400, dtype=np.uint16).view(np.float16).astype(np.float64)[::4]  # normal scales up to 4
    every = np.concatenate([every, -every])
    grid = np.sort(fmt.element.values)
    best = 0.0
    for row in x.double().numpy():
        units = row[:, None] / every
        right = np.clip(np.searchsorted(grid, units), 1, len(grid) - 1)
        near = np.where(units - grid[right - 1] < grid[right] - units, grid[right - 1], grid[right])
        best += ((near * every - row[:, None]) ** 2).sum(0).min()
    found = float((quantize(x, fmt, "mse").dequantize() - x).double().square().sum())
    # Blocks of 16 have many local minima; the gap shrinks with longer blocks.
    assert best * (1 - 1e-3) <= found <= 1.06 * best


@pytest.mark.parametrize(
    "spec",
    [
        *SEARCHED,
        "int8/row",
        "int4/tensor",
        "int3/b4x8+z",
        "mxfp4",
        "mxfp8",
        "nvfp4",
        "int5/g32+z",
        "int2/b*x4",
        "e5m2/row:bf16",
    ],
)
def test_the_search_is_never_worse_than_absmax(spec: str) -> None:
    fmt = parse(spec)
    x = gaussian(19, 71, seed=6)
    x[3, 5] = 40.0
    plain, searched = (quantize(x, fmt, rule).dequantize() for rule in ("absmax", "mse"))
    assert relative_error(x, searched) <= relative_error(x, plain) * (1 + 1e-6)


def test_importance_moves_the_error_to_what_matters_less() -> None:
    x = gaussian(32, 64, seed=7)
    weights = torch.ones(64)
    weights[:8] = 100.0
    fmt = parse("int3/g64")

    def cost(importance: torch.Tensor | None) -> float:
        y = quantize(x, fmt, "mse", importance=importance).dequantize()
        return float(((x - y).square() * weights).sum())

    assert cost(weights) < 0.95 * cost(None)
    assert cost(weights.expand(32, 64)) == cost(weights)
    same = quantize(x, fmt, "mse", importance=torch.full((64,), 3.0))
    assert torch.equal(same.codes, quantize(x, fmt, "mse").codes)


@pytest.mark.parametrize(
    "weights", [torch.ones(63), torch.ones(3, 64), -torch.ones(64), torch.full((64,), float("nan"))]
)
def test_bad_importance_is_refused(weights: torch.Tensor) -> None:
    with pytest.raises(FormatError, match=r"importance must be non-negative \[64\] or \[2, 64\]"):
        quantize(gaussian(2, 64), parse("int4/row"), "mse", importance=weights)


def test_padding_does_not_pull_formats_without_a_zero() -> None:
    x = gaussian(3, 20, seed=8)
    fmt = parse("bipolar2/g16")
    short = quantize(x, fmt, "mse")
    alone = quantize(x[:, 16:].contiguous(), fmt, "mse")
    assert torch.equal(short.scales()[:, 1:], alone.scales())


def test_mirrored_grids_help_at_few_bits() -> None:
    x = gaussian(64, 128, seed=9)
    for bits in (3, 4):
        q = quantize(x, parse(f"int{bits}/g128"), "mse")
        assert (q.scales() < 0).any()
        assert (quantize(x, parse(f"int{bits}/g128:e8m0"), "mse").scales() > 0).all()
        narrow = quantize(x, parse(f"int{bits}n/g128"), "mse")
        assert relative_error(x, q.dequantize()) < relative_error(x, narrow.dequantize())
