"""The average lies on the line between two models, is stored as it is scored, and its log says so."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anybit.zoo.average import average
from anybit.zoo.train_lm import Config, Llama, evaluate, export, load_weights, train_tokenizer

SIZES = Config(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
               num_key_value_heads=1, head_dim=8, max_position_embeddings=32)  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    for seed, name in enumerate(("base", "run")):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir()
        export(Llama(SIZES), tmp_path / name)
    train_tokenizer(["the fox and the crow " * 50], 300, tmp_path / "run")
    (tmp_path / "run" / "train_log.jsonl").write_text('{"step": 7, "loss": 3.0}\n')
    return tmp_path / "base", tmp_path / "run", tmp_path / "out"


def tokens():
    return np.random.default_rng(0).integers(0, 300, 200)


def test_weights_are_the_rounded_mean_by_shares(folders):
    base, run, out = folders
    average(base, run, 0.25, tokens(), out)
    a, b, c = (load_file(f / "model.safetensors") for f in folders)
    for name in a:
        wanted = (0.75 * a[name].double() + 0.25 * b[name].double()).float()
        assert (c[name].float() - wanted).abs().max() <= wanted.abs().max() / 256
    assert any(not torch.equal(c[name], a[name]) for name in a)


@pytest.mark.parametrize(("share", "same"), [(0.0, 0), (1.0, 1)])
def test_the_ends_are_the_models_themselves(folders, share, same):
    average(*folders[:2], share, tokens(), folders[2])
    a, b = load_file(folders[same] / "model.safetensors"), load_file(folders[2] / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_log_ends_with_the_loss_of_what_is_stored(folders):
    loss = average(*folders[:2], 0.5, tokens(), folders[2])
    last = json.loads((folders[2] / "train_log.jsonl").read_text().splitlines()[-1])
    model = Llama(SIZES)
    load_weights(model, folders[2] / "model.safetensors")
    assert last == {"step": 7, "loss": 3.0, "share": 0.5, "valid": loss}
    assert loss == pytest.approx(evaluate(model, tokens()), abs=1e-4)


def test_refuses_shares_and_architectures_that_make_no_average(folders):
    base, run, out = folders
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        average(base, run, 1.5, tokens(), out)
    export(Llama(Config(vocab_size=200, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                        num_key_value_heads=1, head_dim=8, max_position_embeddings=32)), base)  # fmt: skip
    with pytest.raises(ValueError, match="architecture"):
        average(base, run, 0.5, tokens(), out)
    assert not out.exists()
