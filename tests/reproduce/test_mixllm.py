"""The pieces of the experiment; the whole quick run is slow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit import models
from anybit.reproduce import mixllm
from anybit.reproduce.experiment import Context


def test_the_conversion_is_exact_and_ends_where_it_says(monkeypatch):
    assert mixllm._conversion() == 0
    beyond = np.array([(1 << 22) + 1], np.int32)
    assert (beyond + np.int32(0x4B400000)).view(np.float32)[0] - np.float32(12582912) != beyond[0]


def test_scores_and_losses_of_a_real_layer():
    model = models.load("anybit-tiny")
    name = "model.layers.0.mlp.down_proj.weight"
    windows = [w[:64] for w in mixllm._windows(model, "calibration.txt", 2, 0)]
    scores = mixllm._scores(model, [name], windows, mixllm.NARROWER)[name]
    assert scores.shape == (model.weights.shape(name)[0],) and (scores >= 0).all() and scores.max() > 0
    assert not torch.equal(scores, mixllm._scores(model, [name], windows, mixllm.NARROW)[name])
    losses = mixllm._losses(model, model.weights, windows)
    assert losses.shape == (2,) and (losses > 0).all() and (losses < 10).all()


def test_windows_differ_by_seed_and_repeat():
    model = models.load("anybit-tiny")
    a, b = (mixllm._windows(model, "heldout.txt", 3, seed) for seed in (0, 1))
    assert a != b and a == mixllm._windows(model, "heldout.txt", 3, 0) and len(a) == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_run(tmp_path, shared_data):
    figures = mixllm.run(Context(shared_data, tmp_path), quick=True)
    assert figures["one_at_a_time"]["spearman"] > 0.9 and figures["conversion"] == 0
    left = figures["w2"]["left"]
    assert left["whole"] < left["layer"] < left["random"]
