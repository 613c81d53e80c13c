"""What must hold for scale_exact.py. Oracles: every storable scale tried; a dense search; the rules it must not lose to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat, get
from anybit.tensors import block_scales, encode, quantize

parse = TensorFormat.parse


def errors(x: torch.Tensor, fmt: TensorFormat, rule: str, importance: torch.Tensor | None = None) -> float:
    back = quantize(x, fmt, rule, importance=importance).dequantize()  # type: ignore[arg-type]
    return float(((back - x).double() ** 2 * (1 if importance is None else importance)).sum())


@pytest.mark.parametrize("spec", [
    "e2m1/g16", "int4/g32", "nf4/g32", "ternary/g64", "bipolar2/row", "int3/b4x8", "e2m1/g16:e4m3fn", "nvfp4", "mxfp4",
    "e3m2/g32:e8m0", "levels(-3,-1,0,2)/g20:fp32", "int2/g7", "e2m1/g16:ue5m3fn", "posit4_1/g32",
])  # fmt: skip
def test_never_worse_than_the_search(spec: str) -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_t(4, (12, 100))).float()
    fmt = parse(spec)
    importance = torch.linspace(0.1, 3, 100)
    assert errors(x, fmt, "exact") <= errors(x, fmt, "mse") * (1 + 1e-5)
    assert errors(x, fmt, "exact") <= errors(x, fmt, "absmax") * (1 if spec.endswith("e8m0") else 0.999)
    assert errors(x, fmt, "exact", importance) <= errors(x, fmt, "mse", importance) * (1 + 1e-5)


@pytest.mark.parametrize("spec", ["e2m1/g16:e4m3fn", "e2m1/g32:e8m0", "int4/g16:e5m2"])
def test_no_storable_scale_is_better(spec: str) -> None:
    fmt = parse(spec)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)) * 7
    assert fmt.scale is not None
    best = torch.full(fmt.grid((3, 32)), torch.inf)
    for value in fmt.scale.values:
        if value != 0 and abs(value) < 1e6:
            scale = torch.full(fmt.grid((3, 32)), float(value))
            wrong = (encode(x, fmt, scale).dequantize() - x).square()
            best = torch.minimum(best, wrong.reshape(*best.shape, -1).sum(-1))
    got = (quantize(x, fmt, "exact").dequantize() - x).square().reshape(*best.shape, -1).sum(-1)
    assert torch.allclose(got, best, rtol=1e-6)


def test_the_real_scale_is_that_of_a_dense_search() -> None:
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(2))
    levels = np.unique(get("e2m1").values)
    best = np.full(20, np.inf)
    for s in np.geomspace(0.05, 1.5, 4000):
        q = levels[np.abs(x.numpy()[..., None] / s - levels).argmin(-1)]
        best = np.minimum(best, np.sum((x.numpy() - s * q) ** 2, axis=1))
    got = (quantize(x, parse("e2m1/row"), "exact").dequantize() - x).square().sum(1).numpy()
    assert np.all(got <= best * (1 + 1e-6))


def test_zero_blocks_and_short_blocks() -> None:
    x = torch.zeros(2, 20)
    x[1, 17:] = torch.tensor([1.0, -2.0, 3.0])
    for spec in ("e2m1/g16", "e2m1/g16:e4m3fn", "bipolar2/g16"):
        scale, zero, _ = block_scales(x, parse(spec), "exact")
        assert zero is None and scale.shape == (2, 2)
        back = quantize(x, parse(spec), "exact").dequantize()
        assert torch.equal(back[0], torch.zeros(20))
        assert (back[1, 17:] - x[1, 17:]).abs().max() < 1


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(FormatError, match="knows no zero points"):
        quantize(torch.ones(2, 4), parse("int4/g4+z"), "exact")
    with pytest.raises(FormatError, match="too large to sort"):
        quantize(torch.ones(300, 300), parse("int8/tensor"), "exact")
