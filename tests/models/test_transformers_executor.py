"""transformers behind our executor interface: cached steps, truncation, and the same logits as the torch executor."""

from __future__ import annotations

import pytest
import torch

from anybit import models
from anybit.errors import AnybitError
from anybit.models.transformers_executor import TransformersExecutor


@pytest.fixture(scope="module")
def folder():
    return models.load("anybit-tiny").path


def test_logits_are_those_of_the_torch_executor(folder):
    model = models.load(folder)
    ids = [0, *model.tokenizer.encode("The king had a garden and in it stood")]
    ours = models.TorchExecutor(model.plan, model.weights)
    torch.testing.assert_close(
        TransformersExecutor(folder).forward(ids, "all"), ours.forward(ids, "all"), atol=1e-3, rtol=1e-4
    )


def test_steps_and_truncation_keep_the_sequence(folder):
    theirs = TransformersExecutor(folder)
    whole = theirs.forward([0, 5, 9, 200, 31], "all")
    theirs.reset()
    theirs.forward([0, 5, 9, 77, 78])
    theirs.truncate(3)
    assert theirs.position == 3
    torch.testing.assert_close(theirs.forward([200, 31], "all"), whole[3:], atol=1e-3, rtol=1e-4)
    assert theirs.forward([1]).shape == (1, 4096)
    with pytest.raises(AnybitError, match="cannot truncate to 9"):
        theirs.truncate(9)
