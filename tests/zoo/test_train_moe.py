"""The script of `moe` repeats itself bit by bit; experts learn at their own pace, and the run whose weights are bundled comes again."""

import pytest
import torch

from anybit.zoo import train_moe, training
from anybit.zoo.training import Options


def test_an_interrupted_run_ends_in_the_same_bits(story, repeats, monkeypatch):
    monkeypatch.setattr(train_moe, "score", lambda model: {})
    monkeypatch.setattr(train_moe, "LENGTH", 32)
    losses = repeats(train_moe, "--batch", "4", "--text", str(story))
    assert len(set(losses)) == 3


def test_experts_learn_at_their_own_pace(story, tmp_path, monkeypatch):
    monkeypatch.setattr(train_moe, "score", lambda model: {})
    monkeypatch.setattr(train_moe, "LENGTH", 64)
    options = Options(steps=2, lr=1e-3, warmup=1, batch=4)
    task = train_moe.task(options, story, tmp_path)
    before = train_moe.initial(0).state_dict()
    training.run(task, options, tmp_path, say=lambda text: None)
    after = task.model.state_dict()

    def moved(expert):
        name = f"layers.0.mlp.experts.{expert}.up_proj.weight"
        return (after[name] - before[name]).abs().mean().item()

    assert moved(6) == moved(7) == 0
    assert 0 < moved(4) < 0.6 * moved(0)
    assert not torch.equal(after["layers.0.mlp.router.weight"], before["layers.0.mlp.router.weight"])


def test_in_bfloat16(story, in_bfloat16, monkeypatch):
    monkeypatch.setattr(train_moe, "score", lambda model: {})
    monkeypatch.setattr(train_moe, "LENGTH", 32)
    in_bfloat16(train_moe, "--batch", "4", "--text", str(story))


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("moe", train_moe, "--precision", "bf16")
