"""A plan refuses what does not fit together and knows the shapes of the weights it reads."""

import pytest
import torch

from anybit.models.plan import Op, Plan, WeightRef


def plan(*ops, **buffers):
    return Plan(ops, (), {"x": 4, "logits": 9, **buffers}, {}, 9, 0, 1, 4, 16)


def test_unknown_operator():
    with pytest.raises(ValueError, match="unknown plan operator 'conv'; known: embedding"):
        Op("conv", ("x",), "x")


@pytest.mark.parametrize("op", [("add", ("x",), ()), ("linear", ("x",), ()), ("last", ("x",), (WeightRef("w"),))])
def test_wrong_number_of_inputs_or_weights(op):
    kind, inputs, weights = op
    with pytest.raises(ValueError, match=f"operator '{kind}' takes"):
        Op(kind, inputs, "x", weights)


def test_undeclared_buffer_and_wrong_logits():
    with pytest.raises(ValueError, match="uses the buffer 'y', which the plan does not declare"):
        plan(Op("add", ("x", "y"), "x"))
    with pytest.raises(ValueError, match="'logits' must have width 9; got 8"):
        plan(logits=8)


def test_weight_names_and_shapes():
    made = plan(
        Op("embedding", ("ids",), "x", (WeightRef("e"),)),
        Op("rms_norm", ("x",), "x", (WeightRef("n"),), {"heads": 2}),
        Op("linear", ("x",), "q", (WeightRef("qk", (0, 6)), WeightRef("qk.bias", (0, 6)))),
        Op("linear", ("x",), "k", (WeightRef("qk", (6, 8)), WeightRef("qk.bias", (6, 8)))),
        Op("linear", ("x",), "logits", (WeightRef("e"),)),
        q=6,
        k=2,
    )
    assert made.weight_names() == ["e", "n", "qk", "qk.bias"]
    assert made.weight_shapes() == {"e": (9, 4), "n": (2,), "qk": (8, 4), "qk.bias": (8,)}


def test_constants_are_kept():
    assert torch.equal(Plan((), (), {"logits": 1}, {"t": torch.ones(2)}, 1, 0, 1, 1, 1).constants["t"], torch.ones(2))
