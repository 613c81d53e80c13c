"""Names, shapes and counts are those that transformers gives a model of the same config."""

from __future__ import annotations

import pytest

from anybit.cli.bench import shapes
from anybit.errors import AnybitError


@pytest.mark.parametrize("name", list(shapes.SHAPES))
def test_tensors_are_those_of_transformers(name):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM
    from transformers.models.llama import LlamaConfig

    config = shapes.config(name)
    fields = {key: value for key, value in config.items() if key not in ("architectures", "model_type", "dtype")}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**fields))
    expected = {key: tuple(value.shape) for key, value in model.named_parameters()}
    assert shapes.weights(config) == expected
    assert shapes.parameters(config) == sum(value.numel() for value in model.parameters())


def test_sizes_are_as_named():
    assert shapes.parameters(shapes.config("135m")) == pytest.approx(135e6, rel=0.01)
    assert shapes.parameters(shapes.config("0.5b")) == pytest.approx(492e6, rel=0.01)
    assert shapes.parameters(shapes.config("1.1b")) == pytest.approx(1.1e9, rel=0.01)


def test_unknown_shape():
    with pytest.raises(AnybitError, match=r"unknown synthetic model '7b'; there are tiny, 135m, 0\.5b, 1\.1b"):
        shapes.config("7b")
