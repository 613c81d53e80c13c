"""Directories are recognised as what they were made from; strangers are refused."""

import json
from dataclasses import replace

import pytest
import torch

from anybit import models, zoo
from anybit.errors import AnybitError, CheckpointError
from anybit.models.outliers import write
from anybit.zoo import evaluation
from anybit.zoo.evaluation import Evaluation, evaluate, member_of
from anybit.zoo.members import find
from anybit.zoo.networks import NETWORKS
from anybit.zoo.quantizing import quantize


@pytest.fixture
def first_window(monkeypatch):
    """Score one window only."""
    cut = evaluation.cut
    monkeypatch.setattr(evaluation, "cut", lambda ids, window, bos: cut(ids[:400], window, bos))


def test_outliers_have_the_metric_of_the_model_they_are_in(first_window):
    plain, changed = evaluate("anybit-tiny"), evaluate("lm-outliers")
    assert changed.value == pytest.approx(plain.value, rel=1e-5)
    assert changed.member.name == "lm-outliers" and changed.member.bar == plain.member.bar
    assert plain.bytes > 1e7 and plain.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["anybit-tiny", "lm-outliers", "stories260k", "dllm", "moe", "mobilenet", "mobilenet-v3"]
)
def test_the_figure_of_the_table(name, shared_data):
    member = find(name)
    if not member.trained:
        pytest.skip(f"{name} is {member.status}")
    assert evaluate(name).value == pytest.approx(member.bar, rel=2e-3 if member.better == "high" else 2e-4)


def test_a_written_decoder_is_recognised(tmp_path, first_window):
    model = zoo.load("lm-outliers")
    write(model, tmp_path / "out")
    assert member_of(model).name == "lm-outliers" and member_of(zoo.load("anybit-tiny")).name == "anybit-tiny"
    found = evaluate(str(tmp_path / "out"))
    assert found.member.name == "lm-outliers" and found.value == pytest.approx(evaluate("lm-outliers").value, rel=1e-6)


def test_strangers_are_refused(tmp_path, tiny_llama):
    with pytest.raises(AnybitError, match="was not made from a member of the zoo"):
        evaluate(str(tiny_llama))
    with pytest.raises(CheckpointError, match=r"anybit\.json is missing"):
        evaluate(str(tmp_path))
    (tmp_path / "anybit.json").write_text(json.dumps({"module": "Net", "formats": {}, "notes": {}}))
    with pytest.raises(AnybitError, match="names no member of the zoo"):
        evaluate(str(tmp_path))
    with pytest.raises(AnybitError, match="the zoo has no member 'nothing'"):
        evaluate("nothing")


@pytest.fixture
def tiny_llama(tmp_path_factory):
    from anybit.zoo.train_lm import Config, Llama, export

    folder = tmp_path_factory.mktemp("llama")
    export(Llama(Config(300, 16, 32, 1, 2, 1, 8, 32)), folder)
    assert models.load(folder).plan.layers == 1
    return folder


def test_the_gap_counts_in_the_good_direction():
    high, low = find("resnet20"), find("stories260k")
    assert Evaluation(high, "x", 90.5, 0, 0.0).gap == pytest.approx(-1.0)
    assert Evaluation(low, "x", low.bar + 1, 0, 0.0).gap == pytest.approx(-1.0)


def test_a_quantized_member_is_compared_with_the_unquantized_one(shared_data, tmp_path, monkeypatch):
    def compare(module, whole, progress):
        x = torch.ones(1, 1, 49, 10)
        return {"distance": (module(x) - whole(x)).norm().item()}

    monkeypatch.setitem(NETWORKS, "dscnn-kws", replace(NETWORKS["dscnn-kws"], compare=compare))
    quantize("dscnn-kws", tmp_path / "out", "int8/row")
    assert 0 < evaluate(str(tmp_path / "out")).more["distance"] < 1
    assert evaluate("dscnn-kws").more == {}
