"""A run becomes package data; what is printed is what the table needs."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from anybit.errors import CheckpointError
from anybit.zoo.architectures.vit import Block
from anybit.zoo.bundle import bundle, in_rows
from anybit.zoo.networks import Network, load
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


def test_matrices_in_rows_of_int8(tmp_path):
    """Half the bytes of bfloat16; rows with the error of rounding to their own 127th, what is small or no matrix to the bit."""
    torch.manual_seed(0)
    block = Block(64, 2)
    with torch.no_grad():
        block.fc1.weight[3] *= 100  # rows have scales of their own
        block.q.weight[5] = 0
    run(Task(block, lambda m, s: m.o.bias.sum(), lambda m: {}, adamw), Options(1, 0.0, 1, 1), tmp_path / "run", str)
    plain = load_file(tmp_path / "run" / WEIGHTS)
    assert set(in_rows({"head.weight": torch.ones(3, 4), "x": torch.ones(99, 99)})) == {"head.weight", "x"}
    bundle("vit", tmp_path / "run", tmp_path / "weights", int8=True)
    stored = tmp_path / "weights" / "vit" / WEIGHTS
    assert stored.stat().st_size < 0.55 * (tmp_path / "run" / WEIGHTS).stat().st_size
    codes = load_file(stored)["fc1.weight_int8"]
    assert codes.dtype == torch.int8 and codes.shape == (256, 64) and codes.abs().amax() >= 120
    module = load(Network(lambda: Block(64, 2), lambda m, p: 0.0), stored)
    for name, value in module.state_dict().items():
        if name.endswith("weight") and value.dim() == 2:
            step = plain[name].float().abs().amax(1) / 127
            error = (value - plain[name].float()).square().mean(1).sqrt()
            assert (error <= 1.15 * step / 12**0.5 + 1e-9).all(), name
            assert not torch.equal(value, plain[name].float())
        else:
            assert torch.equal(value, plain[name].float()), name


def test_int8_rows_without_their_scale_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match=r"a tensor fc\.scale of its own"):
        in_rows({"fc.weight": torch.ones(64, 128), "fc.scale": torch.ones(3)})
    stored = in_rows({f"fc.{name}": value.detach() for name, value in nn.Linear(64, 64).state_dict().items()})
    network = Network(lambda: nn.ModuleDict({"fc": nn.Linear(64, 64)}), lambda m, p: 0.0)
    for scale in ({}, {"fc.scale": torch.ones(3)}):
        save_file({k: v for k, v in stored.items() if k != "fc.scale"} | scale, tmp_path / "x")
        with pytest.raises(CheckpointError, match=r"fc\.weight"):
            load(network, tmp_path / "x")
