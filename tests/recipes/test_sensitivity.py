"""Gradients of the backward walk against one autograd pass, and costs against the true loss of a quantized model."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from anybit import models
from anybit.models.interpreter import run
from anybit.recipes import items
from anybit.recipes.quantizer import Quantizer
from anybit.recipes.sensitivity import Sensitivity, _first
from anybit.recipes.walk import Held

IDS = [torch.tensor([256, *range(i, i + 40, 2)]) for i in range(0, 60, 7)]


@pytest.mark.parametrize("which", ["model", "tied"])
def test_output_gradients_equal_one_backward_pass(which: str, request: pytest.FixtureRequest) -> None:
    loaded = models.load(request.getfixturevalue(which))
    found = items.quantizable(loaded)
    sensitivity = Sensitivity(loaded, found, IDS[:1], seed=5)
    order: list[str] = []
    sensitivity.run(lambda item: order.append(item.name), lambda share, what: None)
    assert sorted(order) == sorted(item.name for item in found)
    outputs: dict[int, torch.Tensor] = {}
    buffers = {"ids": IDS[0]}
    held = Held(loaded.weights)
    for index, op in enumerate(loaded.plan.ops):
        buffers = run(loaded.plan, held, [op], buffers)
        if op.kind == "embedding":
            buffers[op.output] = buffers[op.output].requires_grad_()
        if index in sensitivity.fisher:
            outputs[index] = buffers[op.output]
    logits = buffers["logits"]
    targets = torch.multinomial(logits.detach().softmax(-1), 1, generator=torch.Generator().manual_seed(5))[:, 0]
    gradients = torch.autograd.grad(functional.cross_entropy(logits, targets, reduction="sum"), list(outputs.values()))
    for index, gradient in zip(outputs, gradients, strict=True):
        expected = gradient.double().square().mean(0)
        torch.testing.assert_close(sensitivity.fisher[index].second_moment, expected, rtol=1e-3, atol=1e-9)


def test_costs_predict_the_loss_of_quantizing_one_matrix(model: Path) -> None:
    """KL divergence from the original, one matrix replaced at a time: ranked alike, and of the same size on average."""
    loaded = models.load(model)
    found = items.quantizable(loaded)
    sensitivity = Sensitivity(loaded, found, IDS, seed=0)
    costs: dict[str, float] = {}
    quantizer = Quantizer("rtn", {})
    sensitivity.run(
        lambda item: costs.__setitem__(item.name, sensitivity.costs(item, ["int4/g16", "keep"], quantizer)[0]),
        lambda s, w: None,
    )

    def log_shares(replaced: dict[str, models.weights.Weight]) -> torch.Tensor:
        executor = models.TorchExecutor(loaded.plan, models.Overlay(loaded.weights, replaced))
        rows = []
        for ids in IDS:
            executor.reset()
            rows.append(executor.forward(ids, "all").double().log_softmax(-1))
        return torch.cat(rows)

    reference = log_shares({})
    true = {}
    for item in found:
        q = quantizer(item, loaded.weights.get(item.name), sensitivity_format(), None).qtensor
        changed = log_shares({item.name: q})
        true[item.name] = float((reference.exp() * (reference - changed)).sum(-1).mean())
    names = [item.name for item in found]
    predicted, actual = (torch.tensor([table[name] for name in names]).log() for table in (costs, true))
    correlation = torch.corrcoef(torch.stack([predicted, actual]))[0, 1]
    assert correlation > 0.7
    # Off-diagonal terms of G are left out, and few tokens are seen: right within a factor, not within percents.
    assert abs(float((predicted - actual).mean())) < 0.7


def sensitivity_format():
    from anybit.formats import TensorFormat

    return TensorFormat.parse("int4/g16")


def test_keep_costs_nothing_and_fewer_bits_cost_more(model: Path) -> None:
    loaded = models.load(model)
    found = items.quantizable(loaded)
    sensitivity = Sensitivity(loaded, found, IDS, seed=0)
    rows: list[list[float]] = []
    choices = ["keep", "int8/g16", "int5/g16", "int3/g16"]
    sensitivity.run(
        lambda item: rows.append(sensitivity.costs(item, choices, Quantizer("gptq", {}))), lambda s, w: None
    )
    for row in rows:
        assert row[0] == 0 and row == sorted(row)


def test_first_windows_are_spread() -> None:
    windows = [torch.full((10,), i) for i in range(20)]
    kept = _first(windows, 45)
    assert [int(w[0]) for w in kept] == [0, 5, 10, 15]
    assert len(_first(windows, 3)) == 1 and len(_first(windows, 10**6)) == 20
