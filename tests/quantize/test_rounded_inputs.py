"""Inputs rounded while weights are learned: what is dropped, when, and what gradients see."""

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, gradient_ptq
from anybit.quantize.rounded_inputs import Inputs, rounding
from anybit.tensors import quantize


def test_exact_inputs_are_not_touched() -> None:
    assert rounding(Inputs()) is None and rounding(gptq.Options()) is None and rounding(gradient_ptq.Options()) is None


def test_without_gradients_all_are_rounded() -> None:
    inputs, x = rounding(Inputs("int4/row")), torch.randn(3, 5, 64)
    wanted = quantize(x.reshape(15, 64), TensorFormat.parse("int4/row")).dequantize().reshape(x.shape)
    assert inputs is not None
    with torch.no_grad():
        assert torch.equal(inputs(x), wanted)


@pytest.mark.parametrize("drop", [0.0, 0.25, 1.0])
def test_a_share_stays_as_it_is_and_gradients_pass(drop: float) -> None:
    inputs, x = rounding(Inputs("int2n/g32", drop)), torch.randn(100, 64, requires_grad=True)
    wanted = quantize(x.detach(), TensorFormat.parse("int2n/g32")).dequantize()
    assert inputs is not None
    y = inputs(x)
    exact = y == x
    assert float(exact.float().mean()) == pytest.approx(drop, abs=0.03)
    assert torch.equal(torch.where(exact, wanted, y), wanted)
    (y * torch.arange(64)).sum().backward()
    assert torch.equal(x.grad, torch.arange(64.0).expand(100, 64))
    if 0 < drop < 1:
        assert not torch.equal(y, inputs(x))  # drawn anew
        again = rounding(Inputs("int2n/g32", drop))
        assert again is not None and torch.equal(y, again(x))


def test_what_is_not_finite_stays_so() -> None:
    inputs = rounding(Inputs("int8/row", 0.0))
    assert inputs is not None and bool(inputs(torch.tensor([[1.0, float("inf")]])).isnan().all())


def test_refusals() -> None:
    with pytest.raises(FormatError):
        Inputs("int99/row")
    with pytest.raises(ValueError, match="between 0 and 1"):
        Inputs("int8/row", -0.1)
