"""Simulated configurations against plain loops; what differs between them and what must not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from anybit.ops.invariant import TreeWeight
from anybit.ops.simulated import ORDERS, Configuration, SimulatedWeight, simulated_linear, visit


def layer(k: int = 700, n: int = 24, m: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(k)
    return torch.randn(m, k, generator=g), torch.randn(n, k, generator=g)


def loops(x: np.ndarray, w: np.ndarray, c: Configuration) -> float:
    """One output in float32 scalars, layercast arithmetic."""
    total = np.float32(0)
    for r, rank in enumerate(c.segments(len(x))):
        local = np.float32(0)
        for s, (a, b) in enumerate(rank):
            blocks = list(range(-(-(b - a) // c.lanes)))
            blocks = {"ascending": blocks, "descending": blocks[::-1], "interleaved": blocks[::2] + blocks[1::2]}[
                c.order
            ]
            lanes = [np.float32(0)] * c.lanes
            for block, lane in itertools.product(blocks, range(c.lanes)):
                i = a + block * c.lanes + lane
                if i < b:
                    lanes[lane] = lanes[lane] + x[i] * w[i]
            while len(lanes) > 1:
                lanes = [lanes[2 * i] + lanes[2 * i + 1] for i in range(len(lanes) // 2)]
            local = lanes[0] if s == 0 else local + lanes[0]
        total = local if r == 0 else total + local
    return float(total)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("ranks", "splits", "lanes"), [(1, 1, 8), (4, 1, 16), (2, 3, 8), (8, 2, 1)])
def test_layercast_equals_plain_loops(order: str, ranks: int, splits: int, lanes: int) -> None:
    x, w = layer(203, n=3, m=2)
    c = Configuration(1, ranks, splits, order, lanes)
    y = simulated_linear(x, w, c, "layercast")
    values = w.bfloat16().float().numpy()
    assert y.tolist() == [[loops(row, column, c) for column in values] for row in x.numpy()]


CONFIGURATIONS = [
    Configuration(b, r, s, o, n) for b, r, s, o, n in itertools.product((1, 6), (1, 2, 8), (1, 2), ORDERS, (8, 16))
]


def test_16_bits_differ_much_layercast_little_and_the_tree_not_at_all() -> None:
    x, w = layer()
    tree = TreeWeight.of(w.bfloat16())
    exact = x.double() @ w.bfloat16().double().T
    results = {
        arithmetic: torch.stack(
            [
                simulated_linear(x, tree if arithmetic == "invariant" else w, c, arithmetic).double()
                for c in CONFIGURATIONS
            ]
        )
        for arithmetic in ("16 bits", "layercast", "invariant")
    }
    spread = {name: float((r.amax(0) - r.amin(0)).max()) for name, r in results.items()}
    assert spread["invariant"] == 0.0
    assert 0 < spread["layercast"] < 1e-3 * spread["16 bits"]
    assert (results["layercast"] - exact).abs().max() < 1e-3 and (results["invariant"] - exact).abs().max() < 1e-3
    assert simulated_linear(x, w, CONFIGURATIONS[0]).dtype == torch.bfloat16


def test_every_column_is_visited_once_and_padding_last() -> None:
    for order in ORDERS:
        index = visit(21, Configuration(order=order, lanes=8))
        assert index.shape == (8, 3)
        assert sorted(index.reshape(-1).tolist()) == [*range(21), 21, 21, 21]


def test_what_is_refused() -> None:
    x, w = layer()
    for bad in ({"ranks": 3}, {"lanes": 0}, {"order": "random"}):
        with pytest.raises(ValueError):
            Configuration(**bad)
    with pytest.raises(ValueError, match="unknown arithmetic 'fp8'"):
        simulated_linear(x, w, Configuration(), "fp8")
    with pytest.raises(ValueError, match="must share k"):
        simulated_linear(x[:, :5], w, Configuration())
    with pytest.raises(ValueError, match="a weight is"):
        simulated_linear(x, w[0], Configuration())
    with pytest.raises(ValueError, match="only the invariant arithmetic"):
        simulated_linear(x, TreeWeight.of(w), Configuration())


def test_a_weight_in_the_order_of_a_configuration_gives_the_same_bits():
    x, w = torch.randn(5, 77), torch.randn(6, 77)
    for c in (Configuration(), Configuration(3, 4, 3, "interleaved", 16), Configuration(2, 2, 1, "descending")):
        ordered = SimulatedWeight.of(w, c)
        for arithmetic in ("16 bits", "layercast"):
            assert torch.equal(simulated_linear(x, ordered, c, arithmetic), simulated_linear(x, w, c, arithmetic))
    with pytest.raises(ValueError, match="in the order of"):
        simulated_linear(x, ordered, Configuration())
    with pytest.raises(ValueError, match="in leaves"):
        simulated_linear(x, ordered, ordered.configuration, "invariant")


def test_no_rows_give_no_rows() -> None:
    x, w = torch.zeros(0, 40), torch.randn(6, 40)
    for arithmetic in ("16 bits", "layercast", "invariant"):
        assert simulated_linear(x, w, Configuration(batch=4), arithmetic).shape == (0, 6)
