"""`anybit eval` gives the perplexity that transformers gives on the same tokens, and refuses bad input with one sentence."""

from __future__ import annotations

import math

import pytest
import torch


def reference(folder, windows) -> float:
    """Perplexity by transformers in float32 of windows that begin with the begin token."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = []
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([window])
            logits = model(ids).logits[0, :-1].double()
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    return math.exp(torch.cat(losses).mean().item())


@pytest.mark.parametrize("executor", ["torch", "native"])
def test_perplexity_is_that_of_transformers(executor, tiny_folder, anybit):
    from tokenizers import Tokenizer

    done = anybit("eval", tiny_folder, "--window", 64, "--executor", executor, "--act", "none", "--json")
    assert done.code == 0, done.err
    ids = Tokenizer.from_file(str(tiny_folder / "tokenizer.json")).encode((tiny_folder / "heldout.txt").read_text()).ids
    windows = [[256, *ids[i : i + 63]] for i in range(0, len(ids), 63)]
    if len(windows[-1]) - 1 < 16:
        windows.pop()
    assert done.json["tokens"] == sum(len(window) - 1 for window in windows)
    # fp32 sums in another order: the bound of 0.1 % is far above that
    assert done.json["perplexity"] == pytest.approx(reference(tiny_folder, windows), rel=1e-3)
    assert done.json["bits_per_weight"] == 16.0


def test_published_number(shared_data, anybit):
    # the figure of the shared data's own README, measured with transformers in fp32 by the same protocol
    text = shared_data / "text" / "tinystories_train_excerpt.txt"
    done = anybit(
        "eval", shared_data / "stories260k", "--text", text, "--window", 512, "--act", "none", "--kv", "fp32", "--json"
    )
    assert done.code == 0, done.err
    assert done.json["nll"] == pytest.approx(1.6168, abs=2e-4)
    assert done.json["perplexity"] == pytest.approx(5.037, rel=1e-3)


def test_bytes_are_those_of_the_tensors(tiny_folder, anybit):
    from safetensors.torch import load_file

    stored = sum(t.numel() * t.element_size() for t in load_file(tiny_folder / "model.safetensors").values())
    done = anybit("eval", tiny_folder, "--tokens", 50, "--executor", "torch", "--json")
    assert done.json["bytes"] == stored


def test_people_get_a_table(tiny_folder, anybit):
    done = anybit("eval", tiny_folder, "--tokens", 100, "--executor", "torch")
    assert done.code == 0
    assert "perplexity" in done.out
    assert "bits a weight" in done.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--window", "1000"], "a window has between 2 and 256 tokens"),
        (["--window", "1"], "a window has between 2 and 256 tokens"),
        (["--tokens", "0"], "--tokens must be above 0"),
        (["--executor", "gpu"], "--executor is native, torch or transformers; got 'gpu'"),
        (["--executor", "torch", "--kv", "int8"], "the torch executor keeps its cache in fp32"),
        (["--kv", "int3"], "--kv is fp32, fp16, int8; got 'int3'"),
        (["--act", "int99/row"], "int99"),
        (["--threads", "0"], "--threads must be between 1 and 1024; got 0"),
        (["--text", "/no/such/text"], "the evaluation text /no/such/text is not a file"),
    ],
)
def test_bad_options(options, sentence, tiny_folder, anybit):
    done = anybit("eval", tiny_folder, *options, "--json")
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_empty_and_binary_text(tiny_folder, tmp_path, anybit):
    empty, binary = tmp_path / "empty.txt", tmp_path / "binary.txt"
    empty.write_text(" \n ")
    binary.write_bytes(b"abc\xff\xfe")
    assert "is empty" in anybit("eval", tiny_folder, "--text", empty).err
    assert "byte 3" in anybit("eval", tiny_folder, "--text", binary).err


def test_model_without_text(tiny, anybit):
    (tiny / "heldout.txt").unlink()
    done = anybit("eval", tiny)
    assert done.code == 2
    assert "--text" in done.err


def test_one_file_is_served_at_fewer_bits(tiny_folder, tmp_path, anybit):
    master = tmp_path / "master"
    options = ["--method", "matgptq", "--samples", 4, "--length", 64]
    assert anybit("quantize", tiny_folder, master, *options).code == 0
    found = []
    for bits in (None, 4, 2):
        served = [] if bits is None else ["--at-bits", bits]
        done = anybit("eval", master, "--text", tiny_folder / "heldout.txt", "--window", 64, *served, "--json")
        assert done.code == 0, done.err
        found.append(done.json)
    assert found[0]["bytes"] > found[1]["bytes"] > found[2]["bytes"]
    assert found[0]["parameters"] == found[2]["parameters"]
    assert len({each["perplexity"] for each in found}) == 3
    refused = anybit("eval", tiny_folder, "--at-bits", 4)
    assert refused.code == 2 and "no int8 weights" in refused.err
