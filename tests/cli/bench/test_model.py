"""Rounds of made-up engines give the speeds, shares and ratios worked out by hand."""

from __future__ import annotations

import pytest

from anybit.cli.bench import model, shapes
from anybit.cli.bench.peers import Round
from anybit.formats import TensorFormat


class Fixed:
    """An engine whose rounds last what it is told."""

    def __init__(self, log: list[str], name: str, seconds: list[float]) -> None:
        self.log, self.name, self.seconds = log, name, iter(seconds)

    def round(self) -> Round:
        self.log.append(self.name)
        one = next(self.seconds)
        return Round(100, one, 10, one)


def test_rounds_are_interleaved_and_the_first_is_not_counted():
    log: list[str] = []
    engines = {"a": Fixed(log, "a", [99, 1, 2, 4]), "b": Fixed(log, "b", [99, 2, 4, 8])}
    bandwidths = iter([1000.0, 500.0, 250.0])
    found = model.measure(engines, 3, lambda: next(bandwidths), {"a": 50})
    assert log == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert found[0].prefill.values == (100, 50, 25)
    assert found[0].decode.median == 5
    # 50 bytes a token at 10, 5, 2.5 tokens/s of 1000, 500, 250 bytes/s
    assert found[0].share == pytest.approx(0.5)
    assert found[1].share is None
    assert model.ratios(found, "a") == {"b": {"prefill": 2.0, "decode": 2.0}}


def test_random_weights_have_the_shapes_and_formats():
    config = shapes.config("tiny")
    weights = model.RandomWeights(config, TensorFormat.parse("int4/g64"), TensorFormat.parse("int8/row"))
    for name, shape in shapes.weights(config).items():
        assert tuple(weights.get(name).shape) == shape
        assert weights.get(name) is weights.get(name)
    assert str(weights.get("model.embed_tokens.weight").format) == "int8/row"
    assert str(weights.get("model.layers.1.mlp.up_proj.weight").format) == "int4/g64"
    expected = sum(
        TensorFormat.parse("int8/row" if "embed" in n else "int4/g64").nbytes(s) if len(s) == 2 else 2 * s[0]
        for n, s in shapes.weights(config).items()
    )
    assert weights.nbytes == expected


def test_unscaled_format_is_stored_as_bf16():
    weights = model.RandomWeights(shapes.config("tiny"), TensorFormat.parse("bf16"), TensorFormat.parse("bf16"))
    assert str(weights.get("model.layers.0.mlp.up_proj.weight").dtype) == "torch.bfloat16"
