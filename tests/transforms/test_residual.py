"""Which blocks have a residual, and that two steps of 4 bits err as little as the paper's bound says."""

import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.transforms.residual import Options, residual_columns


def test_blocks_with_a_large_channel_in_their_places() -> None:
    largest = torch.ones(100)
    largest[[20, 70]] = torch.tensor([8.0, 40.0])  # blocks 1 and 4
    assert residual_columns(largest, Options(most=1.0)).tolist() == [*range(16, 32), *range(64, 80)]
    assert residual_columns(largest, Options(most=0.2)).tolist() == [*range(64, 80)]
    assert residual_columns(largest, Options(share=0.5, most=1.0)).tolist() == [*range(64, 80)]
    largest[98] = 100.0  # in the last block, which is not whole
    assert residual_columns(largest, Options(most=1.0)).tolist() == [*range(64, 80)]
    assert (
        residual_columns(torch.zeros(64), Options()).tolist()
        == residual_columns(torch.ones(8), Options()).tolist()
        == []
    )


def test_two_steps_err_as_one_of_eight_bits() -> None:
    """Single steps of E2M1 err by up to a sixth of the block's largest value, two by 0.03 (the digits of the paper's section 4)."""
    x = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    fmt = TensorFormat.parse("nvfp4")
    once = quantize(x, fmt).dequantize()
    twice = once + quantize(x - once, fmt).dequantize()
    top = x.abs().amax(1, keepdim=True)
    eight = quantize(x, TensorFormat.parse("mxfp8")).dequantize()
    assert float(((once - x).abs() / top).max()) > 0.14
    assert float(((twice - x).abs() / top).max()) < 0.035
    assert float((twice - x).norm()) < float((eight - x).norm())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="shares lie in"):
        Options(share=0.0)
    with pytest.raises(ValueError, match="1 channel or more"):
        Options(block=0)
    Options(block=16).stores(TensorFormat.parse("nvfp4"), "w")
    Options(block=16).stores(TensorFormat.parse("int8/row"), "w")
    with pytest.raises(RecipeError, match=r"cuts the groups of int4/g64 \(blk.w\)"):
        Options(block=16).stores(TensorFormat.parse("int4/g64"), "blk.w")
