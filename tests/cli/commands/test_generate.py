"""`anybit generate`: the text is what the executor chose, the same with the same seed, and JSON has the speeds."""

from __future__ import annotations

import pytest


def greedy(folder, prompt: str, count: int) -> list[int]:
    """Greedy continuation by transformers in float32, behind the begin token."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[256, *Tokenizer.from_file(str(folder / "tokenizer.json")).encode(prompt).ids]])
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=256
        )
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("executor", ["torch", "native"])
def test_greedy_text_is_that_of_transformers(executor, tiny_folder, anybit):
    from tokenizers import Tokenizer

    done = anybit(
        "generate",
        tiny_folder,
        *("--prompt", "the cat", "--max-tokens", 12, "--temperature", 0),
        *("--executor", executor, "--kv", "fp32", "--act", "none", "--json"),
    )
    assert done.code == 0, done.err
    expected = greedy(tiny_folder, "the cat", 12)
    text = Tokenizer.from_file(str(tiny_folder / "tokenizer.json")).decode(expected)
    # a token that is no whole character reads as U+FFFD in both
    assert done.json["text"] == text
    assert done.json["prompt_tokens"] == 8
    assert done.json["prefill_tokens_per_s"] > 0
    assert done.json["decode_tokens_per_s"] > 0
    assert "the cat" in done.err


def test_seed_decides(tiny_folder, anybit):
    def text(seed: int) -> str:
        done = anybit(
            "generate", tiny_folder, "--prompt", "a", "--max-tokens", 20, "--temperature", 1.5, "--seed", seed, "--json"
        )
        assert done.code == 0, done.err
        return done.json["text"]

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_people_read_prompt_and_text(tiny_folder, anybit):
    done = anybit("generate", tiny_folder, "--prompt", "the moon", "--max-tokens", 3, "--temperature", 0)
    assert done.code == 0
    assert done.out.startswith("the moon")
    assert "tokens/s" in done.out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--max-tokens", "0"], "at least 1"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "0"], "top_p"),
        (["--min-p", "2"], "min_p"),
        (["--top-k", "-1"], "top_k"),
        (["--seed", "-1"], "seed"),
        (["--repetition-penalty", "0"], "repetition_penalty"),
        (["--act", "int4/row"], "int4/row"),
        (["--kv", "nf4"], "--kv"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_bad_options(options, word, tiny_folder, anybit):
    done = anybit("generate", tiny_folder, "--prompt", "a", *options, "--json")
    assert (done.code, done.out) == (2, "")
    assert word in done.err.splitlines()[-1]


def test_prompt_longer_than_the_model_reads(tiny_folder, anybit):
    done = anybit("generate", tiny_folder, "--prompt", "cat " * 200)
    assert done.code == 2
    assert "256" in done.err
