"""The product of several formats against the product of the values."""

from __future__ import annotations

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import reference
from anybit.ops.mixed import MixedPacked, mixed_matmul
from anybit.tensors.mixed import quantize_mixed

parse = TensorFormat.parse


def problem(axis: int, n: int = 37, k: int = 192):
    generator = torch.Generator().manual_seed(axis)
    x, w = torch.randn(2, 3, k, generator=generator), torch.randn(n, k, generator=generator)
    choice = (torch.rand((n, k)[axis], generator=generator) < 0.7).long()
    return x, quantize_mixed(w, [parse("int8/g32"), parse("int4/g32")], choice, axis)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
def test_exact_activations(axis: int, packed: bool) -> None:
    x, w = problem(axis)
    bias = torch.randn(37)
    y = mixed_matmul(x, MixedPacked.of(w) if packed else w, bias)
    true = x.double() @ w.dequantize().double().T + bias
    assert y.shape == (2, 3, 37) and torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)


def test_rows_of_both_widths_meet_the_same_rounded_activations() -> None:
    x, w = problem(0)
    act = parse("int8/g32")
    y = mixed_matmul(x, w, act=act)
    true = reference.round_activations(x, act).double() @ w.dequantize().double().T
    assert torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)


def test_columns_of_each_part_are_rounded_in_their_own_way() -> None:
    x, w = problem(1)
    acts = [parse("int8/g32"), parse("int4/g32")]
    y = mixed_matmul(x, w, act=acts)
    true = sum(
        reference.round_activations(x[..., which], act).double() @ part.dequantize().double().T
        for which, act, part in zip(w.members, acts, w.parts, strict=True)
    )
    assert torch.allclose(y.double(), true, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    x, w = problem(0)
    with pytest.raises(FormatError, match="x has 191 columns, the weight 192"):
        mixed_matmul(x[..., 1:], w)
    with pytest.raises(FormatError, match="3 formats of activations cannot serve 2 parts"):
        mixed_matmul(x, w, act=[None, None, None])
