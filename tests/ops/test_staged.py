"""The staged product against float64, within the rounding of its workspace, and the same bits for any number of workers."""

from __future__ import annotations

import pytest
import torch

from anybit.errors import AnybitError
from anybit.formats import TensorFormat
from anybit.ops.staged import staged_matmul
from anybit.tensors import quantize


@pytest.mark.parametrize("spec", ["int4/g128", "uint4/g64+z", "int3/row", "nf4/g32"])
@pytest.mark.parametrize(
    ("n", "k", "splits"), [(300, 1024, 1), (300, 1024, 3), (17, 640, 5), (256, 128, 1), (7, 200, 2)]
)
def test_within_the_rounding_of_the_workspace(spec: str, n: int, k: int, splits: int) -> None:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(2, 3, k, generator=generator)
    w = quantize(torch.randn(n, k, generator=generator), TensorFormat.parse(spec))
    y = staged_matmul(x, w, splits)
    values = w.dequantize().double()
    bound = 2**-10 * (x.double().abs() @ values.abs().T) + 2**-23
    assert y.shape == (2, 3, n) and y.dtype == torch.float32
    assert ((y - x.double() @ values.T).abs() <= bound).all()
    exact = staged_matmul(x, w, splits, workspace=torch.float32)
    assert ((exact - x.double() @ values.T).abs() <= 2**-12 * bound + 1e-5).all()


def test_bits_depend_on_splits_and_not_on_workers() -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(4, 2048, generator=generator), torch.randn(600, 2048, generator=generator)
    q = quantize(w, TensorFormat.parse("int4/g128"))
    one = staged_matmul(x, q, 4)
    for workers in (2, 3, 7, 24):
        assert torch.equal(staged_matmul(x, q, 4, workers=workers), one)
    assert not torch.equal(staged_matmul(x, q, 3), one)


def test_what_cannot_be_staged_is_refused() -> None:
    x, q = torch.randn(1, 512), quantize(torch.randn(8, 512), TensorFormat.parse("int4/g128"))
    with pytest.raises(AnybitError, match="chunks of 64 columns cut the groups of int4/g128"):
        staged_matmul(x, q, chunk=(8, 64))
    with pytest.raises(AnybitError, match="4 steps of k cannot be split 5 times"):
        staged_matmul(x, q, 5)
    with pytest.raises(AnybitError, match="at least one row"):
        staged_matmul(x, q, chunk=(0, 128))
    assert q.scale is not None
    q.scale[3, 1] = float("inf")
    with pytest.raises(AnybitError, match="not finite"):
        staged_matmul(x, q)
