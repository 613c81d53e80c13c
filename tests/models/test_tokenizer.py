"""Tokenizers: text there and back, and which tokens begin and end a text."""

import json

import pytest

from anybit.errors import CheckpointError
from anybit.models.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<end>": 2, "a": 3, "b": 4, "<unk>": 5}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<s>", "</s>", "<end>"])
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_text_there_and_back(folder):
    t = load_tokenizer(folder, {})
    assert t.encode("a b a") == [3, 4, 3] and t.decode([0, 3, 4, 1]) == "a b" and t.size == 6
    assert t.decode([0, 3], skip_special_tokens=False) == "<s> a"


def test_begin_and_end_tokens(folder):
    assert (load_tokenizer(folder, {}).bos, load_tokenizer(folder, {}).eos) == (None, ())
    config = {"bos_token_id": 0, "eos_token_id": [1, 2]}
    assert (load_tokenizer(folder, config).bos, load_tokenizer(folder, config).eos) == (0, (1, 2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    assert load_tokenizer(folder, config).eos == (2, 1)
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    t = load_tokenizer(folder, {})
    assert (t.bos, t.eos) == (0, (2, 1))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": None}))
    assert load_tokenizer(folder, config).bos is None  # a tokenizer that says it has no begin token is believed


def test_missing_and_damaged(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json is not a tokenizer"):
        load_tokenizer(folder, {})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing: text needs a tokenizer.json"):
        load_tokenizer(folder, {})
