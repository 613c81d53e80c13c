"""Networks that learn roundings and scales as one block: nearer to what they answered, for exact and for rounded inputs."""

import pytest
import torch
from torch import nn

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models.module import quantize_module
from anybit.nn import QConv2d, QLinear


def test_learned_networks_answer_nearer_than_gptq_and_stay_what_they_are(network):
    """On the samples that decide: squared errors, and divergences of the distributions; equal calls give equal bits."""
    torch.manual_seed(1)
    mix = torch.randn(3, 3)
    data = [torch.einsum("ij,bjhw->bihw", mix, torch.randn(32, 3, 12, 12)) for _ in range(4)]
    fmt = TensorFormat.parse("int3/row")
    made = {}
    for method in ("gradient_ptq", "distill"):
        model = network().requires_grad_(False)
        model[8].weight *= 100  # distributions that are far from flat
        reports = quantize_module(
            model, fmt, method, data, {"steps": 60, **({"model_steps": 60} if method == "distill" else {})}
        )
        for report in reports.values():
            assert report.details["kept"]
            assert report.details["block_error_after"] < 0.9 * report.details["block_error_before"]
        made[method] = model
    details = reports["8"].details
    assert details["kl_after"] < 0.95 * details["kl_before"]
    again = network().requires_grad_(False)
    again[8].weight *= 100
    quantize_module(again, fmt, "gradient_ptq", data, {"steps": 60})
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), made["gradient_ptq"].state_dict().values(), strict=True)
    )
    assert [type(model[i]) for i in (0, 2, 4, 8)] == [QConv2d, QConv2d, QConv2d, QLinear]


def test_networks_learn_for_rounded_inputs(network):
    """One scale for all inputs of a layer, 3 bits: the answers err less than those of a network that learned for exact inputs."""
    torch.manual_seed(1)
    mix = torch.randn(3, 3)
    data = [torch.einsum("ij,bjhw->bihw", mix, torch.randn(32, 3, 12, 12)) for _ in range(4)]
    act, errors = TensorFormat.parse("int3/tensor"), []
    with torch.no_grad():
        wanted = network()(torch.cat(data))
    for options in ({}, {"act": str(act)}):
        model = network().requires_grad_(False)
        quantize_module(model, TensorFormat.parse("int4/row"), "gradient_ptq", data, options, act=act)
        with torch.no_grad():
            errors.append(float((model(torch.cat(data)) - wanted).square().mean()))
        assert not any(module._forward_pre_hooks for module in model.modules())
    assert errors[1] < 0.9 * errors[0]
    with pytest.raises(RecipeError, match=r"0: inputs of a convolution.*as of int8/tensor; got int8/row"):
        quantize_module(network(), TensorFormat.parse("int4/g32"), "gradient_ptq", data, {"act": "int8/row"})


def test_batches_of_any_form_are_cut_into_samples():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x, y=None):
            return self.a(x) if y is None else self.a(x) + self.b(y)

    x, y = torch.randn(2, 40, 8)
    codes = []
    for batches in ([{"x": x, "y": y}], [(x, y)], [(x[:16], y[:16]), (x[16:], y[16:])]):
        torch.manual_seed(0)
        model = Named()
        quantize_module(model, TensorFormat.parse("int2/row"), "gradient_ptq", batches, {"steps": 8})
        codes.append(model.a.weight.dequantize())
    assert torch.equal(codes[0], codes[1]) and torch.allclose(codes[0], codes[2], atol=1e-5)
