"""Scores against autograd and against what rounding a row really does to the loss; choices against sorting by hand."""

from __future__ import annotations

import pytest
import torch

from anybit.allocate.metrics.row_taylor import RowTaylor, choose
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.tensors import quantize


def network(seed: int = 0):
    """Two layers and cross-entropy; loss(w) for sequences of 12 tokens."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(40, 32, generator=generator) / 4
    head = torch.randn(10, 40, generator=generator)
    inputs = [torch.randn(12, 32, generator=generator) for _ in range(6)]
    labels = [torch.randint(0, 10, (12,), generator=generator) for _ in range(6)]

    def loss(weight: torch.Tensor, i: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(torch.tanh(inputs[i] @ weight.T) @ head.T, labels[i])

    return w, inputs, labels, head, loss


def scored(change: torch.Tensor) -> RowTaylor:
    w, inputs, labels, head, _ = network()
    metric = RowTaylor(change)
    for x, label in zip(inputs, labels, strict=True):
        y = (x @ w.T).requires_grad_()
        torch.nn.functional.cross_entropy(torch.tanh(y) @ head.T, label).backward()
        metric.add(x, y.grad)
    return metric


def test_the_formula_with_gradients_by_autograd() -> None:
    w, _, _, _, loss = network()
    change = quantize(w, TensorFormat.parse("int3/g32")).dequantize() - w
    expected = torch.zeros(40, dtype=torch.float64)
    for i in range(6):
        weight = w.clone().requires_grad_()
        loss(weight, i).backward()
        p = (weight.grad.double() * change.double()).sum(1)
        expected += (p + p.square() / 2).abs()
    metric = scored(change)
    assert metric.sequences == 6 and torch.allclose(metric.score, expected, rtol=1e-5)


def test_ranks_follow_the_change_of_the_loss() -> None:
    """Rounding one row at a time: Spearman correlation of scores with the summed magnitudes of what really happens."""
    w, _, _, _, loss = network()
    change = quantize(w, TensorFormat.parse("int4/g32")).dequantize() - w
    real = torch.zeros(40, dtype=torch.float64)
    for row in range(40):
        moved = w.clone()
        moved[row] += change[row]
        real[row] = sum(abs(float(loss(moved, i) - loss(w, i))) for i in range(6))
    rank = lambda t: t.argsort().argsort().double()  # noqa: E731
    assert float(torch.corrcoef(torch.stack([rank(scored(change).score), rank(real)]))[0, 1]) > 0.9


def test_rows_are_chosen_over_all_layers() -> None:
    scores = {"a": torch.tensor([5.0, 1, 9]), "b": torch.tensor([7.0, 8])}
    widths = {"a": 10, "b": 40}
    assert {n: c.tolist() for n, c in choose(scores, widths, 0.4).items()} == {
        "a": [False, False, True],
        "b": [False, True],
    }
    # by byte: 0.9, 0.5, 0.2 (40 columns), 0.175 (40), 0.1; a third of 110 weights are the first two
    assert {n: c.tolist() for n, c in choose(scores, widths, 1 / 3, "byte").items()} == {
        "a": [True, False, True],
        "b": [False, False],
    }
    assert not any(c.any() for c in choose(scores, widths, 0).values())
    assert all(c.all() for c in choose(scores, widths, 1).values())


def test_bad_input_is_refused() -> None:
    metric = RowTaylor(torch.zeros(3, 4), name="q")
    with pytest.raises(RecipeError, match=r"q: inputs \[5, 4\] and gradients \[6, 3\] do not fit a weight of 3 x 4"):
        metric.add(torch.zeros(5, 4), torch.zeros(6, 3))
    with pytest.raises(RecipeError, match="q: the gradients hold NaN"):
        RowTaylor(torch.ones(3, 4), name="q").add(torch.ones(5, 4), torch.full((5, 3), float("nan")))
    with pytest.raises(RecipeError, match="a matrix of finite numbers"):
        RowTaylor(torch.full((3, 4), float("inf")))
    with pytest.raises(RecipeError, match="by 'row' or 'byte', a share of 0 to 1 of them; got 'row' and 2"):
        choose({"a": torch.ones(2)}, {"a": 1}, 2)
