"""An image classifier to try quantizers on: its images, what methods make of it, and how far its answers are from its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anybit import zoo
from anybit.formats import TensorFormat
from anybit.models.module import quantize_module
from anybit.reproduce.experiment import Context
from anybit.zoo.images import images, normalise, photographs

OUTER = TensorFormat.parse("int8/row")
"""Of the first and the last layer, which the field leaves at 8 bits."""
BATCH = 64


class Classifier:
    """A network of the zoo for CIFAR-10, scored on the first test images."""

    def __init__(self, context: Context, name: str, scored: int) -> None:
        """scored: images, at most 1,000."""
        self.name, self._context = name, context
        x, y = images(context.file("cifar10/test_first1000.npz"))
        self._x, self._y = x[:scored], y[:scored]
        self._own = self._answers(self.network())

    def network(self) -> nn.Module:
        """Unquantized, a new one each time."""
        network = zoo.load(self.name)
        assert isinstance(network, nn.Module), "a network, no decoder"
        return network

    def images(self, count: int) -> Tensor:
        """The first training images [count, 3, 32, 32], to calibrate on."""
        return images(self._context.file("cifar10/train_0.npz"))[0][:count]

    def photographs(self, count: int) -> Tensor:
        """As many photographs of other things, made as small."""
        large = photographs(self._context.file("imagenet_samples/imagenet_1000x224.npz"), range(count))
        return normalise(nn.functional.avg_pool2d(large.float(), large.shape[-1] // self._x.shape[-1]))

    def accuracy(self) -> float:
        """Percent of the scored images that the network itself gets right."""
        return self._right(self._own)

    def tried(
        self, weights: str, act: str, method: str, options: Mapping[str, Any], calibration: Tensor
    ) -> dict[str, float]:
        """accuracy (percent) and kl (nats an image, to the network itself) of what a method makes of it.

        weights: format of all layers but the first and the last.  act: of all layers' inputs, one scale a batch.
        """
        network = self.network()
        names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        chosen = dict.fromkeys(names, TensorFormat.parse(weights)) | {names[0]: OUTER, names[-1]: OUTER}
        quantize_module(network, chosen, method, calibration.split(BATCH), options, TensorFormat.parse(act))
        return self.judged(network)

    def judged(self, network: nn.Module) -> dict[str, float]:
        """accuracy (percent) and kl (nats an image, to the network itself) of one that is quantized already."""
        got = self._answers(network)
        return {"accuracy": self._right(got), "kl": float((self._own.exp() * (self._own - got)).sum(-1).mean())}

    @torch.no_grad()
    def _answers(self, network: nn.Module) -> Tensor:
        return torch.cat([network(part) for part in self._x.split(BATCH)]).log_softmax(-1)

    def _right(self, answers: Tensor) -> float:
        return 100 * float((answers.argmax(-1) == self._y).double().mean())
