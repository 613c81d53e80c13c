"""A run becomes package data; what is printed is what the table needs."""

import hashlib

import pytest
import torch
from torch import nn

from anybit.errors import CheckpointError
from anybit.zoo.bundle import bundle
from anybit.zoo.training import LOG, WEIGHTS, Options, Task, adamw, read_log, run


def test_bundle(tmp_path):
    torch.manual_seed(0)
    task = Task(nn.Linear(3, 3), lambda m, s: m(torch.ones(1, 3)).square().sum(), lambda m: {"accuracy": 81.25}, adamw)
    options = Options(steps=80, lr=0.1, warmup=2, batch=4, save_every=13, stop=65)
    run(task, options, tmp_path / "run", lambda text: None)
    text = bundle("vit", tmp_path / "run", tmp_path / "weights")
    out = tmp_path / "weights" / "vit"
    assert sorted(path.name for path in out.iterdir()) == [WEIGHTS, LOG]
    assert hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest() in text
    assert "65 steps of 80 of 4 samples" in text and "accuracy 81.25" in text
    assert [row["step"] for row in read_log(out / LOG)] == [*range(1, 51), 52, 60, 65]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        bundle("vit", tmp_path, tmp_path / "weights")
