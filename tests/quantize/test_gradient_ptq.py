"""The method is its start and the trainer."""

import torch
from tests.quantize.test_gptq import problem

from anybit.formats import TensorFormat
from anybit.quantize import gptq, gradient_ptq, rtn


def test_starts_are_those_of_gptq_and_rounding() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int3/g16")
    ours = gradient_ptq.quantize(weight, fmt, stats)
    assert torch.equal(ours.qtensor.codes, gptq.quantize(weight, fmt, stats).qtensor.codes)
    near = gradient_ptq.quantize(weight, fmt, stats, gradient_ptq.Options(start="rtn"))
    assert torch.equal(near.qtensor.codes, rtn.quantize(weight, fmt, stats).qtensor.codes)


def test_a_layer_learned_on_its_own_errs_less_than_rounding_on_inputs_it_did_not_see() -> None:
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(64, 64, generator=g) / 8
    x, w = torch.randn(20, 64, 64, generator=g) @ mix, torch.randn(32, 64, generator=g)
    seen, fresh = x[:16], x[16:]
    fmt = TensorFormat.parse("int3/g32")
    start = rtn.quantize(w, fmt).qtensor
    options = gradient_ptq.Options(steps=150, rate=0.003)
    done = gradient_ptq.refine(
        {"w": (w, start)},
        lambda weights, windows: seen[list(windows)] @ weights["w"].T,
        lambda windows: seen[list(windows)] @ w.T,
        16,
        options,
        "layer",
    )

    def error(q: torch.Tensor) -> float:
        return float((fresh @ (q - w).T).square().sum())

    assert error(done.weights["w"].dequantize()) < 0.9 * error(start.dequantize())
