import pytest
import torch

from anybit.formats import TensorFormat
from anybit.quantize import gptq, obs, rtn
from anybit.quantize.statistics import Statistics
from anybit.recipes.items import Item
from anybit.recipes.quantizer import Quantizer

FMT = TensorFormat.parse("int3/g16")


def item(role: str) -> Item:
    return Item("w", (12, 32), role, (0,))  # type: ignore[arg-type]


def stats() -> Statistics:
    made = Statistics(32)
    made.add(torch.randn(200, 32) * torch.exp(torch.randn(32)))
    return made


def test_linear_layers_go_through_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    w, s = torch.randn(12, 32), stats()
    expected = gptq.quantize(w, FMT, s, gptq.Options(damping=0.05)).qtensor
    quantizer = Quantizer("gptq", {"damping": 0.05})
    quantizer.prepare(item("linear"), s)
    monkeypatch.setattr(obs, "factorize", lambda *a, **k: pytest.fail("factored twice"))
    for role in ("linear", "lm_head"):
        assert torch.equal(quantizer(item(role), w, FMT, s).qtensor.codes, expected.codes)


def test_forgetting_lets_other_statistics_in() -> None:
    w, a, b = torch.randn(12, 32), stats(), stats()
    quantizer = Quantizer("gptq", {})
    first = quantizer(item("linear"), w, FMT, a).qtensor.codes
    quantizer.forget()
    second = quantizer(item("linear"), w, FMT, b).qtensor.codes
    assert torch.equal(second, gptq.quantize(w, FMT, b).qtensor.codes)
    assert not torch.equal(first, second)


def test_tables_are_rounded_to_nearest() -> None:
    w, s = torch.randn(12, 32), stats()
    quantizer = Quantizer("gptq", {})
    plain = rtn.quantize(w, FMT).qtensor
    for role, given in (("embedding", None), ("tied", s), ("tied", None)):
        assert quantizer.rounds(item(role))
        assert torch.equal(quantizer(item(role), w, FMT, given).qtensor.codes, plain.codes)
    assert Quantizer("rtn", {}).rounds(item("linear")) and not quantizer.rounds(item("linear"))


def test_options_reach_the_rounding() -> None:
    w = torch.randn(12, 32)
    rounded = Quantizer("rtn", {"scale_rule": "absmax"})(item("linear"), w, FMT, None).qtensor
    assert torch.equal(rounded.codes, rtn.quantize(w, FMT, options=rtn.Options("absmax")).qtensor.codes)
