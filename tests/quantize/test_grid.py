import pytest
import torch

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize.grid import Grid


@pytest.mark.parametrize(
    "spec",
    [
        "int4/g16",
        "int3/g24+z",
        "uint4/row+z",
        "nf4/tensor",
        "mxfp4",
        "nvfp4",
        "bipolar3/g16",
        "int4/b4x16",
        "int16/row",
    ],
)
def test_column_by_column_equals_encoding_the_matrix(spec: str) -> None:
    torch.manual_seed(0)
    fmt = TensorFormat.parse(spec)
    w = torch.randn(10, 50)
    w[:4, :16] = 0
    scale, zero, tensor_scale = tensors.block_scales(w, fmt)
    q = tensors.encode(w, fmt, scale, zero, tensor_scale)
    grid = Grid(fmt, (10, 50), q.scales(), q.zeros(), torch.float32)
    columns = torch.stack([grid.round(i, w[:, i]) for i in range(50)], dim=1)
    assert torch.equal(columns, q.dequantize())
