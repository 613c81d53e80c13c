"""Texts, windows and scores of the language models that are no plan, against the executor of plans and by hand."""

import math
import shutil

import pytest
import torch

from anybit import zoo
from anybit.models import TorchExecutor
from anybit.models.evaluation import cut, perplexity
from anybit.zoo import language
from anybit.zoo.architectures.masked_lm import MaskedLM
from anybit.zoo.books import dense_weights
from anybit.zoo.networks import silent
from anybit.zoo.train_lm import Config, Llama


def test_perplexity_is_that_of_the_plan(monkeypatch, tmp_path):
    """The story model as a module, on two windows, against the same weights run as a plan."""
    text = (language.SOURCE / "heldout.txt").read_text(encoding="utf-8")[:3500]
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(language.SOURCE / file, tmp_path / file)
    (tmp_path / "heldout.txt").write_text(text, encoding="utf-8")
    weights = dense_weights()
    monkeypatch.setattr(language, "SOURCE", tmp_path)
    dense = Llama(Config())
    dense.load_state_dict(weights)
    model = zoo.load("anybit-tiny")
    windows = cut(model.tokenizer.encode(text), 512, model.tokenizer.bos)
    expected = perplexity(TorchExecutor(model.plan, model.weights), windows).perplexity
    assert language.perplexity(dense, silent) == pytest.approx(expected, rel=1e-4)


def test_windows():
    whole, some = language.windows("heldout.txt", 100), language.windows("heldout.txt", 100, 7)
    assert whole.shape[1] == 100 and some.shape == (7, 100)
    assert torch.equal(whole[0], some[0]) and torch.equal(language.windows("heldout.txt", 50)[1], whole[0, 50:])


def test_the_draws_are_fixed_and_spread():
    (ids, share, draws), again = language.fixed_draws(), language.fixed_draws()
    assert torch.equal(draws, again[2]) and torch.equal(ids, again[0])
    assert ids.shape == draws.shape == (64, 256)
    torch.testing.assert_close(share.sort().values, (torch.arange(64) + 0.5) / 64)


def test_a_model_that_knows_nothing_pays_the_whole_vocabulary():
    mask = MaskedLM().mask

    class Nothing(torch.nn.Module):
        def forward(self, ids):
            return torch.zeros(*ids.shape, mask)

    assert language.masked_score(Nothing(), silent) == pytest.approx(math.log(mask), rel=0.02)


def test_calibration_has_masks_for_the_masked_model_only():
    plain, masked = torch.cat(language.calibration()), torch.cat(language.masked_calibration())
    hidden = masked == MaskedLM().mask
    assert plain.shape == masked.shape == (32, 256)
    assert torch.equal(masked[~hidden], plain[~hidden]) and not (plain == MaskedLM().mask).any()
    assert hidden[0].float().mean() < 0.15 and hidden[-1].all()
