"""The script of `unet` repeats itself bit by bit, interrupted or not, and the run whose weights are bundled; it exports what it trained."""

import pytest
import torch

from anybit.zoo import train_unet
from anybit.zoo.architectures.resnet import ResNet
from anybit.zoo.architectures.unet import TextUNet, captions
from anybit.zoo.train_unet import DEFAULTS, folded, loss


@pytest.fixture
def any_network(monkeypatch, tmp_path):
    """A network that knows nothing in the place of the one of the perceptual loss, and no score."""

    def network(path, depth):
        torch.manual_seed(1)
        return ResNet(depth).eval().requires_grad_(False)

    monkeypatch.setattr(train_unet, "resnet", network)
    monkeypatch.setattr(train_unet, "data_file", lambda name: tmp_path / name)
    monkeypatch.setattr(train_unet, "score", lambda model: {})


def test_an_interrupted_run_ends_in_the_same_bits(small_cifar, any_network, repeats):
    losses = repeats(train_unet, "--batch", "4")
    assert len(set(losses)) == 3


def test_in_bfloat16(small_cifar, any_network, in_bfloat16):
    in_bfloat16(train_unet, "--batch", "8")


def test_the_exported_weights_are_the_same_function(small_cifar, any_network):
    model = train_unet.task(DEFAULTS).model.eval()
    plain = folded(model)
    assert isinstance(plain, TextUNet) and not plain.text._forward_hooks and model.text._forward_hooks
    x, t, caption = torch.randn(2, 3, 32, 32), torch.tensor([1.0, 0.5]), captions(torch.tensor([3, 8]))
    with torch.no_grad():
        assert torch.equal(plain(x, t, caption), model(x, t, caption))  # a division by a power of two
        model.text._forward_hooks.clear()
        assert not torch.allclose(plain(x, t, caption), model(x, t, caption), atol=1e-3)


def test_a_better_picture_has_a_smaller_loss(small_cifar, any_network):
    """Of the true image, of a constant one and of noise, by all three parts."""
    task = train_unet.task(DEFAULTS)
    data, network = task.loss.keywords["data"], task.loss.keywords["network"]
    images = {}

    class Sees(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def forward(self, x, t, caption):
            images.setdefault("size", x.shape)
            signal, sigma = train_unet.levels(t)
            if self.kind == "noise":
                target = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
            else:
                target = torch.zeros_like(x)
            return (signal * x - target) / sigma

    found = {
        kind: loss(Sees(kind), 0, data=data, network=network, options=DEFAULTS).item() for kind in ("flat", "noise")
    }
    assert found["flat"] < found["noise"]


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("unet", train_unet, "--precision", "bf16")
