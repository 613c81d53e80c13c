"""Fake quantization shows the stored values, passes gradients, and trains better than rounding afterwards."""

import torch
from torch import nn

from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.train.fake_quantize import convert, fake_quantize, prepare

TERNARY = TensorFormat.parse("ternary/g16")


def test_forward_is_what_a_checkpoint_stores():
    x = torch.randn(6, 40)
    for spec in ("int4/g16", "nf4/g8", "mxfp4", "ternary/row"):
        fmt = TensorFormat.parse(spec)
        torch.testing.assert_close(fake_quantize(x, fmt), quantize(x, fmt).dequantize(), rtol=0, atol=0)


def test_gradient_passes_straight_through():
    x = torch.randn(4, 16, requires_grad=True)
    fake_quantize(x, TERNARY).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * fake_quantize(x.detach(), TERNARY))


def regression(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return (model(x) - y).square().mean().item()


def test_training_in_the_format_beats_rounding_after_training():
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    y = torch.tanh(x @ torch.randn(16, 4))

    def network() -> nn.Sequential:
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

    after = network()
    regression(after, x, y, 300)
    assert prepare(after, TERNARY) == ["0", "2"]
    convert(after)
    rounded = (after(x) - y).square().mean().item()

    aware = network()
    regression(aware, x, y, 300)
    prepare(aware, TERNARY)
    regression(aware, x, y, 300)
    convert(aware)
    trained = (aware(x) - y).square().mean().item()
    assert trained < 0.5 * rounded
    weight = aware[0].weight.detach()
    torch.testing.assert_close(fake_quantize(weight, TERNARY), weight, rtol=1e-3, atol=1e-4)
