"""The experiment on few tokens: what differs between machines, and that the tree's bits do not; the whole quick run is slow."""

from __future__ import annotations

import pytest
import torch

from anybit import models
from anybit.models import TorchExecutor
from anybit.reproduce import fp32_or_death as fp
from anybit.reproduce.experiment import Context


@pytest.fixture(scope="module")
def model():
    return models.load("anybit-tiny")


def prompts(model, count=4):
    return fp._prompts(model, (model.path / "heldout.txt").read_text(encoding="utf-8"), count)


def test_prompts_begin_as_the_model_wants(model):
    found = prompts(model)
    assert found.shape == (4, fp.PROMPT) and len({tuple(row.tolist()) for row in found}) == 4
    assert model.tokenizer.bos is None or (found[:, 0] == model.tokenizer.bos).all()


def test_sequences_in_step_equal_the_executor(model):
    ids = prompts(model, 2)
    batch = fp._Batch(model, model.weights, lambda site, x, w: x @ w.T, torch.float32)
    got = [batch.forward(part) for part in (ids[:, :9], ids[:, 9:10], ids[:, 10:])]
    for row, logits in zip(ids, torch.cat(got, 1), strict=True):
        wanted = TorchExecutor(model.plan, model.weights).forward(row, "all")
        assert torch.allclose(logits, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


def test_layercast_is_near_exact_products(model):
    assert 0 < fp._layercast_error(model, prompts(model, 2)) < 5e-6


def test_bits_of_three_arithmetics(model, tmp_path, monkeypatch):
    monkeypatch.setattr(fp, "CONFIGURATIONS", fp.CONFIGURATIONS[1:4])
    context = Context(tmp_path, tmp_path)
    found = {
        label: fp._generations(context, label, model, arithmetic, prompts(model), 3)
        for label, arithmetic in fp.ARITHMETICS.items()
    }
    assert found["tree"]["logits_with_other_bits"] == 0 and found["tree"]["std_top1"] == 0
    assert found["layercast"]["logits_with_other_bits"] > 0
    assert found["bf16"]["std_top1"] > 1000 * found["layercast"]["std_top1"] > 0
    assert found["bf16"]["mean_index"] <= found["layercast"]["mean_index"] == 3


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = fp.run(Context(shared_data, tmp_path), quick=True)
    outcomes = [check.apply(figures) for check in fp.EXPERIMENT.checks]
    assert [o.description for o in outcomes if not o.passed] == []
