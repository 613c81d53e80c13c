"""Children's books only, tokenized once; windows depend on seed and step."""

import numpy as np
import torch

from anybit.zoo import books
from anybit.zoo.language import tokenizer
from anybit.zoo.training import Options


def test_tokens_are_those_of_the_stories(tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("FAIRY TALES\nThe fox ran.\n<|endoftext|>\nA TREATISE\nOn taxation.\n", encoding="utf-8")
    ids = books.token_file(text, tmp_path / "run")
    assert tokenizer().decode(ids.tolist()) == "FAIRY TALES\nThe fox ran." and ids[0] == 0
    text.unlink()
    assert np.array_equal(books.token_file(None, tmp_path / "run"), ids), "kept"


def test_windows_depend_on_seed_and_step():
    ids = np.arange(1000, dtype=np.uint16)
    options = Options(steps=1, lr=1, warmup=1, batch=5)
    a = books.windows_at(ids, 3, options, 16)
    assert a.shape == (5, 16) and a.dtype == torch.int64 and torch.equal(a[:, 1:], a[:, :-1] + 1)
    assert torch.equal(a, books.windows_at(ids, 3, options, 16))
    assert not torch.equal(a, books.windows_at(ids, 4, options, 16))


def test_dense_weights():
    state = books.dense_weights()
    assert state["embed_tokens.weight"].dtype == torch.float32 and "layers.5.mlp.up_proj.weight" in state
