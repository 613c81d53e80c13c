"""The members that are nn.Modules: how each is built, how its weights are read, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.errors import CheckpointError
from anybit.zoo import images, language
from anybit.zoo.architectures.experts import ExpertsLM
from anybit.zoo.architectures.kwt import KWT1
from anybit.zoo.architectures.masked_lm import MaskedLM
from anybit.zoo.architectures.mlperf import DSCNN, ResNet8
from anybit.zoo.architectures.mobilenet import MobileNetCifar, MobileNetV1, MobileNetV2
from anybit.zoo.architectures.mobilenet_v3 import MobileNetV3Cifar
from anybit.zoo.architectures.resnet import ResNet
from anybit.zoo.architectures.silero import SileroVAD
from anybit.zoo.architectures.unet import TextUNet
from anybit.zoo.architectures.vit import VisionTransformer
from anybit.zoo.data import data_file
from anybit.zoo.pictures import agreement, likeness

Progress = Callable[[str, float, float], None]
"""Called as progress(what, done, total)."""

CALIBRATION_IMAGES, ENLARGED = 256, 48


def silent(what: str, done: float, total: float) -> None:
    """The progress that says nothing."""


@dataclass(frozen=True)
class Network:
    """build() -> the untrained module.  score(module, progress) -> the member's metric.

    names(name) -> the name in the weights file of one of the module's tensors.  calibration() -> what the module is called with
    by methods that look at inputs, apart from what it is scored on; None where there is no such data.
    compare(module, unquantized, progress) -> more figures of a quantized module by name, where there are some.
    """

    build: Callable[[], nn.Module]
    score: Callable[[nn.Module, Progress], float]
    names: Callable[[str], str] = str
    calibration: Callable[[], Iterable[Any]] | None = None
    compare: Callable[[nn.Module, nn.Module, Progress], Mapping[str, float]] | None = None


def load(network: Network, path: Path) -> nn.Module:
    """The module with its weights in float32, in evaluation mode, without gradients.

    int8 codes with a scale a row (`X.weight_int8`, `X.scale`) are decoded.  Raises CheckpointError naming the first tensor that is
    missing or of another size.
    """
    from safetensors.torch import load_file

    stored = load_file(path)
    module = network.build()
    state: dict[str, Tensor] = {}
    filled: set[int] = set()
    for name, wanted in module.state_dict().items():
        if name.endswith("num_batches_tracked") and name not in stored:
            continue
        if wanted.data_ptr() in filled and network.names(name) not in stored:
            continue  # tied to one that was read
        filled.add(wanted.data_ptr())
        value = _value(stored, network.names(name))
        if value is None or value.numel() != wanted.numel():
            found = "is missing" if value is None else f"has the shape {list(value.shape)}, not {list(wanted.shape)}"
            raise CheckpointError(f"{path}: {network.names(name)!r} {found}")
        state[name] = value.reshape(wanted.shape).to(wanted.dtype)
    module.load_state_dict(state, strict=False)
    return module.eval().requires_grad_(False)


def _value(stored: Mapping[str, Tensor], name: str) -> Tensor | None:
    if name in stored:
        return stored[name]
    codes = stored.get(f"{name}_int8")
    if codes is None:
        return None
    scale = stored.get(f"{name.removesuffix('.weight')}.scale")
    if scale is None or scale.numel() != codes.shape[0]:
        return None
    return codes.float() * scale.view(-1, *[1] * (codes.ndim - 1))


def accuracy(module: nn.Module, x: Tensor, y: Tensor, progress: Progress, batch: int = 50) -> float:
    """Percent of inputs whose largest logit is at the label."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(x), batch):
            part = slice(start, start + batch)
            right += int((module(x[part]).argmax(1) == y[part]).sum())
            progress(f"{min(start + batch, len(x)):,} of {len(x):,}", start + batch, len(x))
    return 100 * right / len(x)


def cifar(module: nn.Module, progress: Progress) -> float:
    """On the first 1,000 test images of CIFAR-10, normalised."""
    return accuracy(module, *images.images(data_file("cifar10/test_first1000.npz")), progress)


def raw_cifar(module: nn.Module, progress: Progress) -> float:
    """The same images as 0..255."""
    x, y = images.pixels(data_file("cifar10/test_first1000.npz"))
    return accuracy(module, torch.from_numpy(x).float(), torch.from_numpy(y), progress)


def cifar_calibration() -> list[Tensor]:
    """The first training images, normalised."""
    return list(images.images(data_file("cifar10/train_0.npz"))[0][:CALIBRATION_IMAGES].split(64))


def raw_cifar_calibration() -> list[Tensor]:
    """The same images as 0..255."""
    return list(
        torch.from_numpy(images.pixels(data_file("cifar10/train_0.npz"))[0][:CALIBRATION_IMAGES]).float().split(64)
    )


def keywords(module: nn.Module, progress: Progress) -> float:
    """On the 1,000 inputs of the MLPerf Tiny runner."""
    with np.load(data_file("mlperf_tiny/kws_mfcc_1000.npz"), allow_pickle=False) as z:
        x = (torch.from_numpy(z["x"]).float() - int(z["zero_point"])) * float(z["scale"])
        return accuracy(module, x, torch.from_numpy(z["y"].astype(np.int64)), progress)


def clips(module: nn.Module, progress: Progress) -> float:
    """Percent of the stored clips on which the largest logit is at the same word as in the stored logits."""
    with np.load(data_file("kwt1/clips.npz"), allow_pickle=False) as z:
        return accuracy(module, torch.from_numpy(z["mfcc"]), torch.from_numpy(z["logits"]).argmax(1), progress)


def speech(module: nn.Module, progress: Progress) -> float:
    """Percent of the frames of 30 s of speech on which the probability lies on the same side of 1/2 as the stored one."""
    with np.load(data_file("silero_vad/speech30s.npz"), allow_pickle=False) as z:
        wave, stored = torch.from_numpy(z["pcm16"].astype(np.float32) / 32768), torch.from_numpy(z["prob"])
    with torch.no_grad():
        found = module(wave)
    progress("frames", 1, 1)
    return 100 * ((found > 0.5) == (stored > 0.5)).double().mean().item()


def photographs(module: nn.Module, progress: Progress) -> float:
    """On one photograph of each class of ImageNet, in -1..1."""
    x = images.photographs(data_file("imagenet_samples/imagenet_1000x224.npz"), range(1000))
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 1.7 times the speed
    right, batch = 0, 20
    with torch.no_grad():
        for start in range(0, len(x), batch):
            part = x[start : start + batch].float().contiguous(memory_format=torch.channels_last)
            logits = module(part / 127.5 - 1)
            right += int((logits.argmax(1) == torch.arange(start, start + batch)).sum())
            progress(f"{start + batch:,} of {len(x):,}", start + batch, len(x))
    return 100 * right / len(x)


def enlarged_calibration() -> list[Tensor]:
    """The first training images of CIFAR-10 at 224x224, in -1..1: photographs apart from those that are scored, only blurred."""
    x = torch.from_numpy(images.pixels(data_file("cifar10/train_0.npz"))[0][:ENLARGED]).float()
    large = F.interpolate(x, size=(224, 224), mode="bicubic").clamp(0, 255)
    return list((large / 127.5 - 1).split(8))


def _padded(name: str) -> str:
    """The convolution inside a `SameConv2d` is stored without its level."""
    return name.replace(".conv.", ".")


def _silero(name: str) -> str:
    """The two linear layers of the LSTM are stored as a cell's."""
    for ours, theirs in (("lstm_input", "ih"), ("lstm_state", "hh")):
        if name.startswith(ours):
            return f"lstm_cell.{name.removeprefix(ours + '.')}_{theirs}"
    return name


NETWORKS: dict[str, Network] = {
    "dllm": Network(MaskedLM, language.masked_score, calibration=language.masked_calibration),
    "moe": Network(ExpertsLM, language.perplexity, calibration=language.calibration),
    "mobilenet": Network(MobileNetCifar, cifar, calibration=cifar_calibration),
    "mobilenet-v3": Network(MobileNetV3Cifar, cifar, calibration=cifar_calibration),
    "vit": Network(VisionTransformer, cifar, calibration=cifar_calibration),
    "unet": Network(TextUNet, agreement, compare=likeness),
    "resnet20": Network(lambda: ResNet(20), cifar, calibration=cifar_calibration),
    "resnet32": Network(lambda: ResNet(32), cifar, calibration=cifar_calibration),
    "resnet8": Network(ResNet8, raw_cifar, _padded, raw_cifar_calibration),
    "resnet8-wide": Network(lambda: ResNet8((40, 80, 160)), raw_cifar, _padded, raw_cifar_calibration),
    "dscnn-kws": Network(DSCNN, keywords, _padded),
    "kwt1": Network(KWT1, clips),
    "silero-vad": Network(SileroVAD, speech, _silero),
    "mobilenet-v1": Network(MobileNetV1, photographs, _padded, enlarged_calibration),
    "mobilenet-v2-int8": Network(MobileNetV2, photographs, _padded, enlarged_calibration),
}
"""Name of a member -> its network."""
