"""QEmbedding returns rows of the dequantized table."""

import pytest
import torch
from torch import nn

from anybit.formats import TensorFormat
from anybit.nn import QEmbedding


@pytest.mark.parametrize("spec", ["int8/row", "int4/g32", "int2/g16+z", "nf4/g64"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (0,)])
def test_rows_equal_the_dequantized_table(spec, shape):
    table = QEmbedding.from_float(nn.Embedding(40, 50), TensorFormat.parse(spec))
    ids = torch.randint(0, 40, shape)
    torch.testing.assert_close(table(ids), table.weight.dequantize()[ids], rtol=1e-6, atol=1e-7)


def test_returns_the_dtype_of_the_layer_it_replaced():
    table = QEmbedding.from_float(nn.Embedding(10, 16, dtype=torch.bfloat16), TensorFormat.parse("int8/row"))
    assert table(torch.tensor([1])).dtype == torch.bfloat16
    fresh = QEmbedding.empty(10, 16, TensorFormat.parse("int8/row"), torch.bfloat16)
    fresh.load_state_dict(table.state_dict())
    assert torch.equal(fresh(torch.arange(10)), table(torch.arange(10)))
