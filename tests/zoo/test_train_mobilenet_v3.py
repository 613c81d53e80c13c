"""The script of `mobilenet-v3` repeats itself bit by bit and the run whose weights are bundled; it heeds its teacher."""

from dataclasses import replace

import pytest
import torch

from anybit.zoo import augment, train_mobilenet_v3
from anybit.zoo.train_mobilenet_v3 import DEFAULTS, loss


@pytest.fixture
def _teacher(any_teacher):
    any_teacher(train_mobilenet_v3)


@pytest.mark.usefixtures("_teacher")
def test_an_interrupted_run_ends_in_the_same_bits(small_cifar, repeats):
    losses = repeats(train_mobilenet_v3, "--batch", "4")
    assert len(set(losses)) == 3


@pytest.mark.usefixtures("_teacher")
def test_in_bfloat16(small_cifar, in_bfloat16):
    in_bfloat16(train_mobilenet_v3, "--batch", "8")


def test_the_loss_is_least_for_the_distribution_of_the_teacher_without_labels(small_cifar):
    """With equal logits of network and teacher the first part is the teacher's entropy times the temperature."""
    options = replace(DEFAULTS, batch=6)
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))

    class Fixed(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return self.value

    def found(student):
        return loss(Fixed(student), 0, data=small_cifar, teacher=Fixed(logits), options=options)

    _, labels = augment.batch(small_cifar, 0, 6, 0)
    p = (logits / 2).softmax(-1)
    by_hand = -2 * (p * p.log()).sum(-1).mean() - 0.5 * logits.log_softmax(-1)[range(6), labels].mean()
    torch.testing.assert_close(found(logits), by_hand)
    assert found(logits.flip(1)) > found(logits)


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("mobilenet-v3", train_mobilenet_v3)
