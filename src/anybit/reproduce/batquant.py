"""BATQuant (arXiv 2603.16590) in miniature: weights and activations in MXFP4 behind affine transforms of every block of 32 channels.

Single layers with outlier channels of two kinds, many of 20 times the usual size and two of 300 times (their weights as much smaller);
`lm-outliers`, a language model with 2 % of the channels between linear steps made 32 times larger; and a vision transformer as it is.
Everywhere: no transform, rotations over the whole width, Hadamard matrices of the blocks, and learned transforms.  Codes of the language
model are chosen by GPTQ, except in the first row; those of the others are the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anybit.formats import TensorFormat
from anybit.quantize import batquant
from anybit.quantize.learned import rounded
from anybit.reproduce.classifier import Classifier
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.tensors import quantize
from anybit.transforms.block_affine import BlockAffine, Options
from anybit.transforms.hadamard import rotate

FOUR = TensorFormat.parse("mxfp4")
LAYERS = {"many": (12, 20.0, False), "few": (2, 300.0, True)}
"""Outlier channels, how much larger they are, and whether their weights are as much smaller."""
READERS = (("q", "k", "v"), ("o",), ("fc1",), ("fc2",))
"""Layers of a block of the vision transformer that read one value."""


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick learns for fewer steps and scores fewer tokens."""
    figures: dict[str, Any] = {}
    for done, (kind, (count, scale, inverse)) in enumerate(LAYERS.items()):
        context.progress("one layer", done, len(LAYERS))
        figures[kind] = _layer(count, scale, inverse, 60 if quick else 300)
    figures["vit"] = _vision(context, 16 if quick else 64, 12 if quick else 200)
    subject = Subject.open(context, "lm-outliers", 1000 if quick else 4000, 8 if quick else 32)
    figures["lm"] = {"perplexity": subject.perplexity()}
    # Few steps are larger ones, and leave no time to learn from two starts.
    recipes = _recipes({"steps": 24, "rate": 0.02, "start": "hadamard"} if quick else {})
    if quick:
        del recipes["smoothed"]  # which nothing is compared with
    for done, (key, recipe) in enumerate(recipes.items()):
        context.progress("lm-outliers in MXFP4", done, len(recipes))
        figures["lm"][key] = subject.tried(recipe, context.work, "mxfp4")
    lm = figures["lm"]
    lm["closed"] = 1 - lm["learned"]["kl"] / lm["nearest"]["kl"]
    return figures


def _recipes(learning: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    def affine(**options: Any) -> list[dict[str, Any]]:
        return [{"name": "block_affine", "options": options}]

    return {
        "nearest": {"weights": "mxfp4", "method": "rtn"},
        "rotated": {"weights": "mxfp4", "transforms": ["hadamard"]},
        "blocks": {"weights": "mxfp4", "transforms": affine(steps=0, clip=False, start="hadamard")},
        "learned": {"method": "batquant", "transforms": affine(**learning)},
        "smoothed": {"method": "batquant", "transforms": ["smooth", *affine(**{**learning, "start": "hadamard"})]},
    }


def _four(x: Tensor) -> Tensor:
    return quantize(x.reshape(-1, x.shape[-1]), FOUR).dequantize().reshape(x.shape)


def _layer(count: int, scale: float, inverse: bool, steps: int) -> dict[str, float]:
    """Relative output errors of a layer of 512 inputs and outputs on tokens that learning has not seen."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(16, 64, 512, generator=g), torch.randn(512, 512, generator=g)
    outliers = torch.randperm(512, generator=g)[:count]
    x[..., outliers] *= scale
    if inverse:
        w[:, outliers] /= scale
    exact = x @ w.T

    def error(y: Tensor) -> float:
        return float((y - exact[8:]).norm() / exact[8:].norm())

    def nearest(block: int) -> float:
        return error(_four(rotate(x[8:], None, block)) @ _four(rotate(w, None, block)).T)

    def learned(x: Tensor, w: Tensor) -> tuple[float, float]:
        def outputs(affine: BlockAffine, matrix: Tensor, windows: Sequence[int] | slice) -> Tensor:
            return rounded(affine.clip(affine.forward(x[windows])), FOUR) @ matrix.T

        done = batquant.learn(
            {"w": {"w": (w, FOUR)}},
            lambda matrices, transforms, windows: outputs(transforms["w"], matrices["w"], list(windows)),
            lambda windows: exact[list(windows)],
            8,
            Options(steps=steps),
        )
        affine = done.transforms["w"]
        y = outputs(affine, _four(affine.for_weights().forward(w)), slice(8, None))
        return error(y), float(affine.conditions().max())

    smooth = (x[:8].abs().amax((0, 1)) / w.abs().amax(0)).sqrt()
    found = {"nearest": nearest(1), "rotated": nearest(512), "blocks": nearest(32)}
    found["learned"], found["condition"] = learned(x, w)
    return {**found, "smoothed": learned(x / smooth, w * smooth)[0]}


class _Rounded(nn.Module):
    """A linear layer with transformed and rounded inputs and weights."""

    def __init__(self, layer: nn.Linear, affine: BlockAffine | None) -> None:
        super().__init__()
        self.affine, self.bias = affine, layer.bias
        self.matrix = _four(layer.weight if affine is None else affine.for_weights().forward(layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.affine is None else self.affine.clip(self.affine.forward(x))
        return nn.functional.linear(_four(y), self.matrix, self.bias)


def _vision(context: Context, shown: int, steps: int) -> dict[str, float]:
    """KL divergence of the classes from the unquantized network's, nats an image."""
    vit = Classifier(context, "vit", 1000)
    found: dict[str, float] = {}
    for done, (kind, count) in enumerate((("nearest", None), ("blocks", 0), ("learned", steps))):
        context.progress("vit in MXFP4", done, 3)
        network = vit.network()
        inputs = _inputs(network, vit.images(shown)) if count is not None else {}
        for number, block in enumerate(network.get_submodule("blocks").children()):
            for names in READERS:
                layers = {name: block.get_submodule(name) for name in names}
                affine = None
                if count is not None:
                    affine = _learned(
                        layers,
                        inputs[f"blocks.{number}.{names[0]}"],
                        Options(steps=count, clip=count > 0, start="auto" if count else "hadamard"),
                    )
                for name, layer in layers.items():
                    assert isinstance(layer, nn.Linear), "a layer of the table"
                    setattr(block, name, _Rounded(layer, affine))
        found[kind] = vit.judged(network)["kl"]
    return found


@torch.no_grad()
def _inputs(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return seen


def _learned(layers: Mapping[str, nn.Module], x: Tensor, options: Options) -> BlockAffine:
    """The transform of what some layers read, learned on their outputs side by side."""
    weights = {name: layer.weight.detach() for name, layer in layers.items() if isinstance(layer, nn.Linear)}
    key = next(iter(weights))
    targets = torch.cat([x @ w.T for w in weights.values()], -1)

    def forward(matrices: Mapping[str, Tensor], transforms: batquant.Transforms, windows: Sequence[int]) -> Tensor:
        affine = transforms[key]
        y = rounded(affine.clip(affine.forward(x[list(windows)])), FOUR)
        return torch.cat([y @ w.T for w in matrices.values()], -1)

    groups = {key: {name: (w, FOUR) for name, w in weights.items()}}
    return batquant.learn(groups, forward, lambda windows: targets[list(windows)], len(x), options).transforms[key]


EXPERIMENT = Experiment(
    number=44,
    name="batquant",
    claim="Learned affine transforms confined to MXFP4's blocks of 32 beat global rotations, which spread outliers into blocks that had "
    "none.",
    source="arXiv 2603.16590",
    checks=(
        Check(
            "a layer with many outliers: learned below the blocks' Hadamard matrices",
            "many.learned",
            "<",
            "many.blocks",
        ),
        Check("and below a rotation of the whole width", "many.learned", "<", "many.rotated"),
        Check(
            "a layer with two large outliers: a rotation of the whole width loses to none",
            "few.rotated",
            ">",
            "few.nearest",
        ),
        Check("learned transforms do not", "few.learned", "<=", "few.nearest"),
        Check("and win where channels have been scaled before", "few.smoothed", "<", "few.nearest"),
        Check("condition numbers stay below a thousand", "few.condition", "<", 1000),
        Check("the language model: learned below the blocks' Hadamard matrices", "lm.learned.kl", "<", "lm.blocks.kl"),
        Check("these below no transform", "lm.blocks.kl", "<", "lm.nearest.kl"),
        Check("learned closes 30 % of the gap or more", "lm.closed", ">=", 0.3),
        Check("and beats the rotation of the whole model", "lm.learned.kl", "<", "lm.rotated.kl"),
        Check("the vision transformer: learned below the blocks' Hadamard matrices", "vit.learned", "<", "vit.blocks"),
        Check("these below no transform", "vit.blocks", "<", "vit.nearest"),
    ),
    run=run,
    key_figures={
        "KL, learned": "lm.learned.kl",
        "blocks' Hadamard matrices": "lm.blocks.kl",
        "whole rotation": "lm.rotated.kl",
        "no transform": "lm.nearest.kl",
        "vit, learned": "vit.learned",
        "vit, blocks": "vit.blocks",
    },
    notes="A transform of two factors cannot make one channel of a block smaller alone, so two huge ones are best left as they are; "
    "scaling channels comes first. KL divergence to the unquantized model in nats a token or image; errors of layers relative to their "
    "outputs, on tokens not learned from. Emulated: no processor here multiplies MXFP4. Transforms are stored in 16 bits and counted.",
)
