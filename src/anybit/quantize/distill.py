"""Distillation into the quantized model: the roundings and scales of all blocks together, learned from the float model's predictions.

Blocks are learned one after another first (`gradient_ptq`); then a few hundred steps lower the KL divergence of the next-token
distributions, as quantization-aware distillation does (Liu et al., LLM-QAT, arXiv 2305.17888; Chen et al., EfficientQAT, arXiv 2407.11062,
learn the scales alone in this phase), on the calibration windows and without labels.  The formats stay what they are: nothing is
added to the model.  Gradients of the whole model are needed, so this is for models of up to about a billion parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from anybit.quantize import gptq, gradient_ptq
from anybit.quantize.reconstruct import Forward, Reconstructed, Settings, Targets, Told, reconstruct
from anybit.tensors import QTensor

BYTES = 60
"""A learned parameter at the peak, as measured (42 to 59): float model and weight, place between codes, V, gradient, two moments, and what
the gradient needs of code, scale and zero point."""


@dataclass(frozen=True)
class Options(gradient_ptq.Options):
    """model_steps, model_rate, model_scale_rate: as steps, rate and scale_rate, of the pass over the whole model."""

    model_steps: int = 400
    model_rate: float = 0.006
    model_scale_rate: float = 0.002

    def __post_init__(self) -> None:
        super().__post_init__()
        self.whole()

    def whole(self) -> Settings:
        """The settings of the pass over the whole model."""
        return whole(self)


def whole(options: Any) -> Settings:
    """The settings of a pass over the whole model: the options of their names, with `model_steps`, `model_rate` and `model_scale_rate`,
    the loss "kl", codes that are free to go anywhere, and what there is no option for as it is by itself."""
    own = {field.name: getattr(options, field.name) for field in fields(Settings) if hasattr(options, field.name)}
    own |= {"steps": options.model_steps, "rate": options.model_rate, "scale_rate": options.model_scale_rate}
    return Settings(**{**own, "loss": "kl", "variable": "free"})


quantize = gptq.under("distill", gradient_ptq.quantize)


def finish(
    parts: Mapping[str, tuple[Tensor, QTensor]],
    forward: Forward,
    targets: Targets,
    windows: int,
    options: Options,
    told: Told | None = None,
) -> Reconstructed:
    """Learn all weights of a model; forward and targets give its logits and the float model's.  Errors are divergences, nats a token."""
    return reconstruct(parts, forward, targets, windows, options.whole(), "the model", told)
