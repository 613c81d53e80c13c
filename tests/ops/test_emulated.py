"""Emulated products: kernels equal the readable reference bit for bit, and the reference equals sums written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import get
from anybit.ops import native
from anybit.ops.emulated import Accumulator, emulated_matmul
from anybit.ops.product import Product

MODULE = native.load()
ISAS = [] if MODULE is None else [name for name, _, present in MODULE.isas() if present]

PRODUCTS = [("exact", ""), ("exact", "e4m3fn"), ("mitchell", "bf16"), ("lmul_add", "bf16"), ("lmul_add", "e4m3fn"), ("lmul_add", "e5m2"),
            ("lmul_add", "e8m3"), ("lmul_add", "fp32"), ("lmul_add", "e2m1"), ("lmul_formula", "e8m4"), ("lmul_formula", "fp32"),
            ("lmul_formula", "e5m2")]  # fmt: skip
ACCUMULATORS = [Accumulator(), Accumulator("bf16", narrow=True), Accumulator("fp16", "chunked", 16, True),
                Accumulator("e5m2", "tree", 7, True), Accumulator("fp32", "tree", 16), Accumulator("e4m3fn", narrow=True),
                Accumulator("fp32", "chunked", 10)]  # fmt: skip


def operands(m: int, n: int, k: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(m * n + k)
    x, w = torch.randn(m, k, generator=g) * size, torch.randn(n, k, generator=g) * size
    x[0, 0], w[0, -1] = 0.0, -0.0
    return x, w


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal as numbers and in the signs of zeros and infinities; NaN equals NaN."""
    number = ~(a.isnan() & b.isnan())
    return bool((a[number] == b[number]).all() and (a.signbit() == b.signbit())[number].all())


@pytest.mark.skipif(MODULE is None, reason="the native module is not built (make native)")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("product", PRODUCTS, ids="-".join)
def test_kernels_equal_the_reference(isa: str, product: tuple[str, str]) -> None:
    before, p = MODULE.isa(), Product(*product, 1.25)
    MODULE.set_isa(isa)
    try:
        for accumulator in ACCUMULATORS:
            for m, n, k in ((1, 1, 1), (5, 19, 37)):
                for size in (1.0, 1e4, 1e-5, 1e25, 1e-25):  # beyond and below the range of many products too
                    x, w = operands(m, n, k, size)
                    assert equal(
                        emulated_matmul(x, w, p, accumulator), emulated_matmul(x, w, p, accumulator, reference=True)
                    )
    finally:
        MODULE.set_isa(before)


@pytest.mark.parametrize("accumulator", ACCUMULATORS, ids=lambda a: f"{a.format}-{a.order}")
def test_results_do_not_depend_on_batch_or_threads(accumulator: Accumulator) -> None:
    x, w = operands(13, 70, 64, 1.0)
    p = Product("lmul_add", "e8m3")
    whole = emulated_matmul(x, w, p, accumulator)
    assert torch.equal(torch.cat([emulated_matmul(row[None], w, p, accumulator) for row in x]), whole)
    if MODULE is not None:
        before = MODULE.threads()
        try:
            MODULE.set_threads(3)
            assert torch.equal(emulated_matmul(x, w, p, accumulator), whole)
        finally:
            MODULE.set_threads(before)


@pytest.mark.parametrize("order", ["sequential", "chunked", "tree"])
def test_orders_written_out(order: str) -> None:
    """Seven terms in bfloat16, chunks of two, with ml_dtypes' arithmetic."""
    import ml_dtypes

    def r(v: float) -> np.float32:
        return np.float32(np.float32(v).astype(ml_dtypes.bfloat16))

    p = np.random.default_rng(3).normal(size=7).astype(np.float32)
    f = np.float32
    a, b, c = r(p[0] + p[1]), r(p[2] + p[3]), r(p[4] + p[5])
    if order == "sequential":
        expected = f(0)
        for v in p:
            expected = r(expected + r(v))
    elif order == "chunked":
        expected = r(r(r(a + b) + c) + r(p[6]))
    else:
        expected = r(r(a + b) + r(c + r(p[6])))
    accumulator = Accumulator("bf16", order, 2)
    for reference in (False, True):
        got = emulated_matmul(torch.from_numpy(p)[None], torch.ones(1, 7), "exact", accumulator, reference)
        assert got.item() == expected


def test_infinities_and_nan() -> None:
    x = torch.tensor([[float("inf"), 1.0], [float("nan"), 1.0], [2.0, float("-inf")]])
    w = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    y = emulated_matmul(x, w, "lmul_add")
    assert y[0, 0] == float("inf") and y[2, 0] == float("-inf")
    assert y[0, 1].isnan() and y[1].isnan().all()


def test_wide_accumulation_of_exact_products_is_a_plain_product() -> None:
    x, w = operands(6, 9, 300, 1.0)
    for accumulator in (None, Accumulator("fp32", "tree", 32)):
        y = emulated_matmul(x, w, accumulate=accumulator)
        assert torch.allclose(y.double(), x.double() @ w.double().T, atol=1e-4)
    swamped = emulated_matmul(torch.ones(1, 4096), torch.ones(1, 4096), accumulate=Accumulator("bf16"))
    assert swamped.item() == 256.0  # 256 + 1 rounds back to 256 in 8 bits
    assert (
        emulated_matmul(torch.ones(1, 4096), torch.ones(1, 4096), accumulate=Accumulator("bf16", "tree", 16)).item()
        == 4096.0
    )


def test_shapes_and_refusals() -> None:
    assert emulated_matmul(torch.ones(2, 3, 8), torch.ones(5, 8)).shape == (2, 3, 5)
    assert emulated_matmul(torch.ones(0, 8), torch.ones(5, 8)).shape == (0, 5)
    assert emulated_matmul(torch.ones(3, 0), torch.ones(5, 0)).tolist() == [[0.0] * 5] * 3
    with pytest.raises(FormatError, match="floating tensors"):
        emulated_matmul(torch.ones(2, 8, dtype=torch.int32), torch.ones(5, 8))
    with pytest.raises(FormatError, match="must share k"):
        emulated_matmul(torch.ones(2, 7), torch.ones(5, 8))
    with pytest.raises(FormatError, match="fewer mantissa bits than the operands"):
        emulated_matmul(torch.ones(2, 8), torch.ones(5, 8), "lmul_add", Accumulator("e4m3fn"))
    for bad in ({"format": "int8"}, {"format": "e2m1"}, {"order": "random"}, {"chunk": 0}, {"format": "e4m11"}):
        with pytest.raises(FormatError):
            Accumulator(**bad)
    assert get("fp16").has_nan
