"""The bundle holds what it says: a loadable model, texts cut from the right books, a card with the log's figures."""

import json

import numpy as np
import pytest

from anybit.zoo.bundle_lm import bundle, excerpt, thin
from anybit.zoo.train_lm import Config, Llama, export, train_tokenizer


def paragraphs(word, n):
    return "\n".join(f"{word} {i} " + "x" * 60 for i in range(n))


def test_excerpt_takes_whole_paragraphs_from_every_book():
    books = [paragraphs("fox", 300), paragraphs("crow", 400)]
    text = excerpt(books, 2000)
    lines = text.strip().split("\n")
    assert {line.split()[0] for line in lines} == {"fox", "crow"}
    assert all(line in books[0].split("\n") + books[1].split("\n") for line in lines)
    assert len(text) == pytest.approx(2000, rel=0.2)


def test_thin_keeps_the_first_fifty_every_tenth_and_every_validation():
    rows = [{"step": s, "loss": 1.0} | ({"valid": 2.0} if s == 77 else {}) for s in range(1, 101)]
    assert [r["step"] for r in thin(rows)] == [*range(1, 51), 60, 70, 77, 80, 90, 100]


def test_bundle_counts_parameters_and_keeps_the_last_log_row_of_a_resumed_step(tmp_path):
    config = Config(vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                    num_key_value_heads=1, head_dim=8, max_position_embeddings=32)  # fmt: skip
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    model = Llama(config)
    export(model, run)
    text = tmp_path / "text.txt"
    text.write_text(paragraphs("fox", 300) + "\n<|endoftext|>\n" + paragraphs("crow", 300), encoding="utf-8")
    train_tokenizer([text.read_text()], 300, run)
    log = [{"step": 1, "loss": 9.0}, {"step": 2, "loss": 8.0}, {"step": 2, "loss": 7.5, "valid": float(np.log(100))}]
    (run / "train_log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in log))
    bundle(run, text, text, out)
    card = (out / "README.md").read_text()
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    assert "perplexity 100.00" in card
    assert "composed" not in card
    assert [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()] == [9.0, 7.5]
    (run / "mixture.json").write_text(json.dumps({"after": 1500, "tale_share": 0.25, "composed_share": 0.2}))
    bundle(run, text, text, out)
    assert (
        "after step 1,500, 25% of the windows are of single tales and 20% of stories composed"
        in (out / "README.md").read_text()
    )
