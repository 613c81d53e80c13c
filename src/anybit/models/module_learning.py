"""Learned roundings and scales (`quantize.reconstruct`) for any nn.Module: all its layers together.

Nothing is known of where a module's blocks begin and end, so the whole of it is one block: methods that refine blocks match what the
module answers, methods that finish a whole model its distribution over the last dimension, as they do for decoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize.result import Quantized, Value
from anybit.quantize.rounded_inputs import rounding
from anybit.quantize.table import Method

WINDOW = 8
"""Samples of a calibration batch that make one window of the trainer."""


def learn(
    model: nn.Module,
    found: Mapping[str, Quantized],
    batches: Iterable[Any],
    method: Method,
    options: Any,
) -> dict[str, Quantized]:
    """The layers of an unquantized module, by name, learned from where `found` leaves them.

    batches: as of `module.quantize_module`; tensors of equal first sizes are cut along it.  Equal arguments on equal threads give equal
    bits.  RecipeError where the module answers with anything but one tensor, and where what it answers is not finite.
    """
    windows = [window for batch in batches for window in _cut(batch)]
    weights = {name: _weight(model, name) for name in found}
    with torch.no_grad():
        wanted = [_answer(call(model, window)) for window in windows]

    def forward(values: Mapping[str, Tensor], numbers: Sequence[int]) -> Tensor:
        changed = {f"{name}.weight": value.reshape(weights[name].shape) for name, value in values.items()}
        return torch.cat(
            [
                _answer(call(lambda *given, **named: functional_call(model, changed, given, named), windows[number]))
                for number in numbers
            ]
        )

    def targets(numbers: Sequence[int]) -> Tensor:
        return torch.cat([wanted[number] for number in numbers])

    parts = {
        name: (weights[name].flatten(1) if each.unrounded is None else each.unrounded, each.qtensor)
        for name, each in found.items()
    }
    details: dict[str, Value] = {}
    made = {name: each.qtensor for name, each in found.items()}
    with _rounding(model, found, options):
        if method.refine is not None:
            done = method.refine(parts, forward, targets, len(windows), options, "the module")
            made = dict(done.weights)
            details |= {"block_error_before": done.before, "block_error_after": done.after, "kept": done.kept}
        if method.finish is not None:
            again = {name: (weights[name].flatten(1), q) for name, q in made.items()}
            done = method.finish(again, forward, targets, len(windows), options)
            made = dict(done.weights)
            details |= {"kl_before": done.before, "kl_after": done.after}
    return {
        name: Quantized(made[name], replace(each.report, details={**each.report.details, **details}))
        for name, each in found.items()
    }


@contextmanager
def _rounding(model: nn.Module, names: Iterable[str], options: Any) -> Iterator[None]:
    """These layers round their inputs as the options say while the context lasts."""
    inputs = rounding(options)
    if inputs is None:
        yield
        return
    layers = {name: model.get_submodule(name) for name in names}
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear) and TensorFormat.parse(options.act).block != (0, 0):
            raise RecipeError(
                f"{name}: inputs of a convolution are rounded here before its patches are cut, with one scale, as of int8/tensor; "
                f"got {options.act}"
            )
    handles = [
        layer.register_forward_pre_hook(lambda _, given: (inputs(given[0]), *given[1:])) for layer in layers.values()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def call(model: Callable[..., Any], batch: Any) -> Any:
    """What a module answers to a tensor, a tuple of positional or a dict of keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*(batch if isinstance(batch, (tuple, list)) else (batch,)))


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor), "quantizable layers have a weight"
    return weight.detach().float()


def _answer(given: Any) -> Tensor:
    """[rows, last dimension]."""
    if not isinstance(given, Tensor):
        raise RecipeError(
            f"methods that learn match what a network answers, which has to be one tensor; got {type(given).__name__}"
        )
    return given.float().reshape(-1, given.shape[-1])


def _cut(batch: Any) -> list[Any]:
    """Windows of at most WINDOW samples; the batch itself where its parts have no samples in common."""
    parts = (
        list(batch.values()) if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else [batch]
    )
    if not all(isinstance(part, Tensor) and part.ndim > 0 and len(part) == len(parts[0]) for part in parts):
        return [batch]
    pieces = list(zip(*(part.split(WINDOW) for part in parts), strict=True))
    if isinstance(batch, Mapping):
        return [dict(zip(batch, piece, strict=True)) for piece in pieces]
    return [list(piece) for piece in pieces]
