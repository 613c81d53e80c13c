"""The script of `unet` repeats itself bit by bit, interrupted or not, and the run whose weights are bundled."""

import pytest

from anybit.zoo import train_unet


def test_an_interrupted_run_ends_in_the_same_bits(small_cifar, repeats, monkeypatch):
    monkeypatch.setattr(train_unet, "score", lambda model: {})
    losses = repeats(train_unet, "--batch", "4")
    assert len(set(losses)) == 3


def test_in_bfloat16(small_cifar, in_bfloat16, monkeypatch):
    monkeypatch.setattr(train_unet, "score", lambda model: {})
    in_bfloat16(train_unet, "--batch", "8")


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("unet", train_unet)
