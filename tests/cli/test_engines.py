"""Both executors are built as asked, and run the same model to the same logits."""

from __future__ import annotations

import pytest
import torch

from anybit import models
from anybit.cli import engines
from anybit.errors import AnybitError


def test_native_and_torch_agree(tiny_folder):
    model = models.load(tiny_folder)
    told = []
    native = engines.build(model, "native", "none", "fp32", 1, lambda what, done, total: told.append((done, total)))
    reference = engines.build(model, "torch", "none")
    ids = [256, 1, 2, 3]
    # logits are of order 1; both sum in float32 in another order
    assert torch.allclose(native.forward(ids, "all"), reference.forward(ids, "all"), atol=1e-4)
    assert native.threads == 1
    assert told[-1][0] == told[-1][1] > 0


def test_auto_activations_are_those_of_the_checkpoint(tiny_folder):
    model = models.load(tiny_folder)
    assert engines.settled(model, "native", "auto") == "int8/g128"
    assert engines.settled(model, "torch", "int8/row") == "int8/row"
    assert engines.settled(model, "transformers", "int8/row") == "none"


def test_activation():
    assert engines.activation("none") is None
    assert engines.activation("int8/static") == "int8/static"
    assert engines.activation("int8/g128") == "int8/g128"
    with pytest.raises(AnybitError, match="int77"):
        engines.activation("int77/row")


def test_levels_are_for_the_native_executor():
    engines.check("native", "none", "fp32", None, "int8")
    with pytest.raises(AnybitError, match="--levels is exact or int8; got 'int4'"):
        engines.check("native", "none", "fp32", None, "int4")
    with pytest.raises(AnybitError, match="--levels int8 is for the native executor; torch computes with exact values"):
        engines.check("torch", "none", "fp32", None, "int8")


def test_cache_default():
    assert engines.cache("native", None) == "fp16"
    assert engines.cache("torch", None) == "fp32"
    assert engines.cache("torch", "int8") == "int8"


def test_formats_of_a_cache(tiny_folder):
    keys, values = engines.cache_formats("int4/g8:e8m0,fp32")
    assert str(keys) == "int4/g8:e8m0" and values is None
    assert engines.cache_formats("int8/g4")[0] == engines.cache_formats("int8/g4")[1]
    engines.check("torch", "none", "int4/g8:e8m0,fp32", None)
    for executor, kv, message in (
        ("torch", "a,b,c", "one of keys"),
        ("torch", "int99/g8", "int99"),
        ("native", "int4/g8", "--kv is"),
    ):
        with pytest.raises(AnybitError, match=message):
            engines.check(executor, "none", kv, None)
    model = models.load(tiny_folder)
    rounded = engines.build(model, "torch", "none", "int4/g4:e8m0,fp32").forward([256, 1, 2, 3], "all")
    exact = engines.build(model, "torch", "none").forward([256, 1, 2, 3], "all")
    assert not torch.equal(rounded, exact) and (rounded - exact).norm() < exact.norm()


def test_prompt_begins_with_the_begin_token(tiny_folder):
    model = models.load(tiny_folder)
    assert engines.prompt_ids(model, "ab") == [256, *model.tokenizer.encode("ab")]
    assert engines.prompt_ids(model, "") == [256]


def test_empty_prompt_without_a_begin_token(tiny):
    import json

    config = json.loads((tiny / "config.json").read_text())
    del config["bos_token_id"]
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(AnybitError, match="prompt is empty"):
        engines.prompt_ids(models.load(tiny), "")
