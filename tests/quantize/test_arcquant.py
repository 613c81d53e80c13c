"""The codes are those of GPTQ, and residual channels close most of the gap that rounded activations leave."""

import torch
from tests.quantize.test_gptq import problem

from anybit import ops
from anybit.formats import TensorFormat
from anybit.quantize import arcquant, gptq
from anybit.tensors import quantize
from anybit.transforms.residual import Options, residual_columns

FMT = TensorFormat.parse(arcquant.FORMAT)


def test_weights_are_those_of_gptq() -> None:
    weight, stats = problem()
    ours, plain = arcquant.quantize(weight, FMT, stats), gptq.quantize(weight, FMT, stats)
    assert torch.equal(ours.qtensor.codes, plain.qtensor.codes) and ours.report.method == "arcquant"


def test_the_order_of_errors_of_rounded_activations() -> None:
    """Outlier channels of 10 to 50 times: residual channels < 8-bit activations < 4-bit ones."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(256, 512, generator=g), torch.randn(128, 512, generator=g)
    x[:, torch.arange(0, 48, 4)] *= 10 + 40 * torch.rand(12, generator=g)
    exact = x @ w.T

    def error(y: torch.Tensor) -> float:
        return float((y - exact).norm() / exact.norm())

    once = quantize(x, FMT).dequantize()
    columns = residual_columns(x.abs().amax(0), Options())
    left = quantize((x - once)[:, columns], FMT).dequantize()
    four = error(once @ w.T)
    ours = error(once @ w.T + left @ w[:, columns].T)
    eight = error(quantize(x, TensorFormat.parse("mxfp8")).dequantize() @ w.T)
    assert len(columns) <= 0.125 * 512
    assert ours < eight < four and ours < four / 2


def test_one_product_of_more_columns_is_the_sum_of_both_products() -> None:
    """Codes and scales of the residual columns copied, as published; without any it is plain NVFP4, with all of them two whole steps."""
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(20, 128, generator=g), quantize(torch.randn(24, 128, generator=g), FMT)
    once = quantize(x, FMT).dequantize()
    twice = quantize(x - once, FMT).dequantize()
    for columns in (torch.arange(0), torch.arange(32, 64), torch.arange(128)):
        added = twice[:, columns]
        copied = quantize(torch.cat([w.dequantize(), w.dequantize()[:, columns]], 1), FMT)
        got = ops.matmul(torch.cat([once, added], 1), copied)
        wanted = once.double() @ w.dequantize().double().T + added.double() @ w.dequantize()[:, columns].double().T
        assert (got - wanted).norm() <= 1e-6 * wanted.norm()
        assert torch.equal(copied.unpacked()[:, :128], w.unpacked())
        assert torch.equal(copied.unpacked()[:, 128:], w.unpacked()[:, columns])
