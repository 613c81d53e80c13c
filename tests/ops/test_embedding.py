"""Rows of packed tables against the dequantized table."""

import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.tensors import quantize


@pytest.mark.parametrize("spec", ["int8/row", "int4/g32", "int3/g20", "int2/g16+z", "nf4/g64", "nvfp4", "e4m3fn/g32"])
def test_rows_equal_the_dequantized_table(spec):
    w = quantize(torch.randn(40, 90), TensorFormat.parse(spec))
    ids = torch.tensor([[0, 39], [7, 7]])
    torch.testing.assert_close(ops.embedding(ids, ops.prepack(w)), w.dequantize()[ids], rtol=1e-6, atol=1e-7)


def test_plain_and_unpacked_tables():
    w = torch.randn(10, 33).to(torch.bfloat16)
    ids = torch.tensor([3, 0])
    assert torch.equal(ops.embedding(ids, w), w.float()[ids])
    assert ops.embedding(torch.zeros(0, dtype=torch.int64), w).shape == (0, 33)


@pytest.mark.parametrize("bad", [-1, 10])
def test_refuses_ids_outside_the_table(bad):
    with pytest.raises(IndexError, match="do not fit a table of 10 rows"):
        ops.embedding(torch.tensor([0, bad]), torch.randn(10, 8))
