"""Windows follow the protocol, and the score is that of uniform predictions where logits are constant."""

from __future__ import annotations

import math

import pytest
import torch

from anybit import models
from anybit.cli import scoring
from anybit.errors import AnybitError


def test_windows(tiny_folder):
    model = models.load(tiny_folder)
    text = "abcdefghij" * 30
    cut = scoring.windows(model, text, 101)
    assert [len(window) for window in cut] == [101, 101, 101]
    assert all(window[0] == 256 for window in cut)
    assert [token for window in cut for token in window[1:]] == model.tokenizer.encode(text)
    assert len(scoring.windows(model, text)[0]) == 256  # the model's positions
    assert len(scoring.windows(model, text, 101, tokens=150)) == 1


@pytest.mark.parametrize("window", [0, 1, 257])
def test_impossible_window(window, tiny_folder):
    with pytest.raises(AnybitError, match="between 2 and 256 tokens"):
        scoring.windows(models.load(tiny_folder), "abc" * 100, window)


class Uniform:
    """Predicts every one of 10 tokens alike."""

    def reset(self) -> None:
        pass

    def forward(self, ids, logits="last"):
        return torch.zeros(len(ids), 10)


def test_score_of_uniform_predictions():
    told = []
    found = scoring.score(Uniform(), [[1, 2, 3], [4, 5]], lambda what, done, total: told.append((done, total)))
    assert found.perplexity == pytest.approx(10)
    assert found.nll == pytest.approx(math.log(10))
    assert told == [(2, 3), (3, 3)]
