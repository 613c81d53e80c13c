"""Perplexity and divergence against closed forms on executors whose distributions are known."""

import math

import pytest
import torch

from anybit.errors import AnybitError
from anybit.models.evaluation import Remembering, cut, divergence, perplexity


class Bigram:
    """Predicts from the last token alone, by a table of logits; counts its resets."""

    def __init__(self, table):
        self.table, self.resets = table, 0

    def reset(self):
        self.resets += 1

    def forward(self, ids, logits="last"):
        rows = self.table[torch.tensor(list(ids))]
        return rows if logits == "all" else rows[-1:]


def random_table(seed, vocab=11):
    return torch.randn(vocab, vocab, generator=torch.Generator().manual_seed(seed))


def test_uniform_model_has_the_vocabulary_as_perplexity():
    score = perplexity(Bigram(torch.zeros(11, 11)), cut(list(range(11)) * 9, 20, bos=0))
    assert score.perplexity == pytest.approx(11, rel=1e-12)
    assert score.stderr == pytest.approx(0, abs=1e-12)


def test_nll_equals_a_direct_sum():
    table, ids = random_table(0), [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6]
    executor = Bigram(table)
    score = perplexity(executor, cut(ids, 8, bos=10))
    p = table.double().softmax(-1)
    want = []
    for start in range(0, 14, 7):
        previous = 10
        for token in ids[start : start + 7]:
            want.append(-math.log(p[previous, token]))
            previous = token
    assert score.tokens == 14
    assert score.nll == pytest.approx(sum(want) / 14, rel=1e-6)
    assert score.stderr == pytest.approx(torch.tensor(want).std().item() / math.sqrt(14), rel=1e-6)
    assert executor.resets == 2


def test_windows_with_and_without_a_begin_token():
    ids = list(range(100, 150))
    assert cut(ids, 20, bos=1) == [[1, *ids[:19]], [1, *ids[19:38]]]  # the last has 12 scored tokens and is dropped
    assert cut(ids, 18, bos=None) == [ids[:18], ids[18:36]]
    assert [len(w) for w in cut(ids, 17, bos=1)] == [17, 17, 17]
    assert len(cut(ids, 10, bos=1, limit=18)) == 2


def test_divergence_equals_the_sum_over_the_vocabulary():
    a, b, ids = random_table(1), random_table(2), [1, 2, 3, 4, 5]
    got = divergence(Bigram(a), Bigram(b), [ids])
    p, q = b.double().softmax(-1), a.double().softmax(-1)
    want = [(p[i] * (p[i] / q[i]).log()).sum().item() for i in ids[:-1]]
    assert got.kl == pytest.approx(sum(want) / 4, rel=1e-9)
    assert got.agreement == sum(int(p[i].argmax() == q[i].argmax()) for i in ids[:-1]) / 4
    assert divergence(Bigram(a), Bigram(a), [ids]).kl == pytest.approx(0, abs=1e-12)


def test_progress_counts_scored_tokens():
    seen = []
    perplexity(Bigram(random_table(0)), [[0, 1, 2], [3, 4]], lambda done, total: seen.append((done, total)))
    assert seen == [(2, 3), (3, 3)]


def test_refusals():
    with pytest.raises(AnybitError, match="holds 0 tokens, too few"):
        cut([], 10, bos=1)
    with pytest.raises(AnybitError, match="at least 2 tokens; got 1"):
        cut([1, 2, 3], 1, bos=None)
    with pytest.raises(AnybitError, match="vocabularies of 5 and 11"):
        divergence(Bigram(random_table(0)), Bigram(torch.zeros(5, 5)), [[1, 2]])


def test_sequences_are_run_once():
    calls = []

    class Counting:
        def reset(self) -> None:
            pass

        def forward(self, ids, logits="last"):
            calls.append(tuple(ids))
            return len(calls)

    executor = Remembering(Counting())  # type: ignore[arg-type]
    assert executor.forward([1, 2]) == executor.forward([1, 2]) != executor.forward([1, 3]) and len(calls) == 2
