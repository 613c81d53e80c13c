"""The story model's training: deterministic, resumable, and exported in a layout transformers reads."""

import argparse
import json

import numpy as np
import pytest
import torch

from anybit.zoo import train_lm
from anybit.zoo.train_lm import Config, Llama, batch_at, export, newton_schulz, tales_at

TINY = Config(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=32,
)


@pytest.fixture
def text(tmp_path):
    rng = np.random.default_rng(0)
    words = ["fox", "crow", "cheese", "tree", "said", "the", "and", "sly"]
    book = "\n".join(" ".join(rng.choice(words, 12)) for _ in range(200))
    path = tmp_path / "books.txt"
    tales = f"THE FOX\n{book}\nTHE CROW\n{book}\nTHE CHEESE\n{book}"
    path.write_text(
        f"Produced by a careful hand\nFAIRY TALES\n{tales}\n<|endoftext|>\nA TREATISE\n{book}\n", encoding="utf-8"
    )
    return path


def arguments(text, out, steps, **others):
    return argparse.Namespace(
        text=text, valid=text, out=out, layers=2, steps=steps, batch=2, lr=4e-3, warmup=2, decay=3, story_share=0.5,
        save_every=2, seed=0, threads=1, device="cpu", precision="fp32", compile=False,
        **{"init": None, "tale_share": 0.0, "composed_share": 0.0} | others,
    )  # fmt: skip


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()]


def test_a_resumed_run_repeats_the_uninterrupted_one(text, tmp_path, monkeypatch):
    monkeypatch.setattr(train_lm, "Config", lambda **_: TINY)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_lm.train(arguments(text, whole, steps=6))

    save = train_lm.export
    calls = []

    def stop_after_first(model, out):
        save(model, out)
        calls.append(out)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train_lm, "export", stop_after_first)
    with pytest.raises(KeyboardInterrupt):
        train_lm.train(arguments(text, halves, steps=6))
    train_lm.train(arguments(text, halves, steps=6))
    assert losses(whole)[2:] == losses(halves)[-4:]
    assert losses(whole)[-1] < losses(whole)[0]


def test_training_goes_on_from_finished_weights(text, tmp_path, monkeypatch):
    monkeypatch.setattr(train_lm, "Config", lambda **_: TINY)
    first, second, wordless, composed = (tmp_path / name for name in ("first", "second", "third", "fourth"))
    train_lm.train(arguments(text, first, steps=6))
    train_lm.train(arguments(text, second, steps=4, init=first, tale_share=1.0))
    steps = [json.loads(line)["step"] for line in (second / "train_log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 11))
    assert (first / "tokenizer.json").read_bytes() == (second / "tokenizer.json").read_bytes()
    assert losses(second)[6] < losses(first)[0] - 0.1  # not from scratch
    train_lm.train(arguments(text, wordless, steps=4, init=first))
    assert losses(wordless)[6:] != losses(second)[6:]  # other windows
    monkeypatch.setattr(train_lm, "COMPOSED", 20)
    train_lm.train(arguments(text, composed, steps=4, init=first, composed_share=0.5))
    assert len({tuple(losses(out)[6:]) for out in (second, wordless, composed)}) == 3


def test_tales_begin_at_their_first_word():
    ids = np.tile(np.array([0, *range(1, 50)], dtype=np.uint16), 20)
    windows = tales_at(3, ids, 1.0, 0, (8, 16))
    assert windows.shape == (8, 17)
    assert (windows[:, 0] == 0).all()
    assert torch.equal(windows, tales_at(3, ids, 1.0, 0, (8, 16)))
    assert (tales_at(3, ids, 0.0, 0, (8, 16))[:, 0] != 0).any()


def test_exported_model_is_read_by_transformers(tmp_path):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = Llama(TINY)
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16).float()  # parameters only: the rotary table stays float32
    export(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 300, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, atol=2e-5, rtol=1e-4)


def test_batches_depend_on_seed_and_step_alone():
    ids = np.arange(5000, dtype=np.uint16)
    starts = np.arange(100)
    a, b = (batch_at(7, ids, starts, 0.5, 3, (4, 16)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, batch_at(8, ids, starts, 0.5, 3, (4, 16)))
    assert (batch_at(7, ids, starts, 1.0, 3, (4, 16))[:, 0] < 100).all()


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_newton_schulz_brings_singular_values_near_one(shape):
    s = torch.linalg.svdvals(
        newton_schulz(torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.float32)
    )
    assert s.min() > 0.6 and s.max() < 1.3


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"tale_share": 0.7, "composed_share": 0.5, "init": "x"}, "at most 1 together"),
        ({"tale_share": -0.1, "init": "x"}, "not negative"),
        ({"composed_share": 0.5}, "--init"),
    ],
)
def test_shares_that_cannot_be_are_refused(text, tmp_path, shares, message):
    with pytest.raises(ValueError, match=message):
        train_lm.train(arguments(text, tmp_path / "out", steps=1, **shares))
    assert not (tmp_path / "out").exists()
