"""The script of `vit` repeats itself bit by bit, interrupted or not, and the run whose weights are bundled."""

import pytest

from anybit.zoo import train_vit


def test_an_interrupted_run_ends_in_the_same_bits(small_cifar, repeats):
    losses = repeats(train_vit, "--batch", "4")
    assert len(set(losses)) == 3


def test_in_bfloat16(small_cifar, in_bfloat16):
    in_bfloat16(train_vit, "--batch", "8")


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("vit", train_vit)
