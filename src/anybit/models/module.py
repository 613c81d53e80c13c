"""Quantize the layers of any nn.Module: convolutional nets, vision transformers, encoders from transformers.

Decoders that a `Plan` covers are better served by `recipes`, which walk them block by block and run them natively. This is for the
rest: nn.Linear, nn.Conv2d and nn.Embedding are replaced in place by their quantized twins of `anybit.nn`, with statistics of
their inputs gathered by hooks where the method needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models.module_learning import call, learn
from anybit.nn import Holder, QConv2d, QEmbedding, QLinear
from anybit.nn.conv import geometry, patches
from anybit.quantize import table
from anybit.quantize.result import Quantized, Report
from anybit.quantize.statistics import Statistics
from anybit.tensors import QTensor

Chooser = Callable[[str, nn.Module], TensorFormat | None]
"""Called with the dotted name and the layer; None leaves the layer as it is."""

QUANTIZABLE = (nn.Linear, nn.Conv2d, nn.Embedding)
KEPT = TensorFormat.parse("int8/row")
"""What `uniform` gives to grouped convolutions where fewer bits are asked for."""


def quantize_module(
    model: nn.Module,
    choose: TensorFormat | Mapping[str, TensorFormat] | Chooser,
    method: str = "rtn",
    batches: Iterable[Any] = (),
    options: Mapping[str, Any] | None = None,
    act: TensorFormat | None = None,
) -> dict[str, Report]:
    """Replace layers in place; returns a report for each by its dotted name.

    choose: one format for every nn.Linear and nn.Conv2d, formats by name, or a function.
    method: a name of `quantize.table`.  batches: what the model is called with for calibration (a tensor, a tuple of
    positional or a dict of keyword arguments), where the method needs it.  act: format of the activations at run time (None: exact).
    Embeddings and layers that no batch reached (an expert that no token chose) are rounded to nearest, as no input statistics exist for
    them; methods that learn blocks learn all layers together (`module_learning`).
    Raises RecipeError for an unknown method, one that rewrites what lies between layers, a name without a layer, no layer chosen, or
    missing calibration.
    """
    chosen = _chosen(model, choose)
    quantizer = table.get(method)
    if quantizer.transforms:
        able = ", ".join(name for name, each in table.METHODS.items() if not each.transforms)
        raise RecipeError(
            f"{method} rewrites what lies between the layers of a decoder ({', '.join(quantizer.transforms)}), which is not known of a "
            f"{type(model).__name__}; it takes {able}"
        )
    parsed = quantizer.parse(options or {})
    statistics: dict[str, Statistics] = {}
    seen: list[Any] = []
    if quantizer.needs == "hessian":
        seen = list(batches)
        layers = {name: model.get_submodule(name) for name in chosen}
        statistics = collect({name: layer for name, layer in layers.items() if _has_statistics(layer)}, model, seen)
    rounding = table.get("rtn")
    found: dict[str, Quantized] = {}
    first: dict[int, str] = {}
    for name, fmt in chosen.items():
        layer = model.get_submodule(name)
        if first.setdefault(id(layer), name) != name:
            continue
        stats = statistics.pop(name, None)
        if quantizer.needs == "hessian" and (stats is None or stats.tokens == 0):
            found[name] = rounding.quantize(_matrix(layer), fmt, None, rounding.parse({}), name=name)
        else:
            found[name] = quantizer.quantize(_matrix(layer), fmt, stats, parsed, name=name)
    if quantizer.refine is not None or quantizer.finish is not None:
        inner = {name: done for name, done in found.items() if not isinstance(model.get_submodule(name), nn.Embedding)}
        with evaluating(model):
            found |= learn(model, inner, seen, quantizer, parsed)
    # All of them first: replacing one layer would hide another that it holds.
    twins = {name: _twin(model.get_submodule(name), found[name], act) for name in found}
    names = {name: first[id(model.get_submodule(name))] for name in chosen}
    for name, holder in names.items():
        replace_layer(model, name, twins[holder])
    return {name: done.report for name, done in found.items()}


def _twin(layer: nn.Module, done: Quantized, act: TensorFormat | None) -> Holder:
    return twin(layer, replace(done.qtensor, shape=tuple(_weight(layer).shape)), act)


def uniform(model: nn.Module, fmt: TensorFormat) -> dict[str, TensorFormat]:
    """The formats of every nn.Linear and nn.Conv2d, by name, when a whole network goes to `fmt`: grouped convolutions keep eight bits.

    The few numbers of a depthwise kernel (9 a channel, 1-2 % of a MobileNet) carry a whole channel each; at four bits they alone cost
    such a network nearly everything it knows (Krishnamoorthi, arXiv 1806.08342, section 3.2).
    """
    chosen = _chosen(model, fmt)
    if fmt.element.bits >= KEPT.element.bits:
        return chosen
    layers = {name: model.get_submodule(name) for name in chosen}
    return {name: KEPT if isinstance(layer, nn.Conv2d) and layer.groups > 1 else fmt for name, layer in layers.items()}


def collect(layers: Mapping[str, nn.Module], model: nn.Module, batches: Iterable[Any]) -> dict[str, Statistics]:
    """Statistics of the inputs of linear and ungrouped convolutional layers over calibration batches.

    Raises RecipeError where there is no batch, or where none of the layers saw one.
    """
    statistics = {name: Statistics(_matrix(layer).shape[1], name=name) for name, layer in layers.items()}
    handles = [layer.register_forward_pre_hook(_hook(statistics[name], layer)) for name, layer in layers.items()]
    seen = 0
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                seen += 1
                call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise RecipeError("this method calibrates on data: give at least one batch")
    if statistics and not any(gathered.tokens for gathered in statistics.values()):
        raise RecipeError("calibration reached none of the layers to quantize: give other batches")
    return statistics


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and back."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def twin(layer: nn.Module, weight: QTensor, act: TensorFormat | None = None) -> Holder:
    """The quantized module that computes what `layer` does, with `weight` in place of its own."""
    if isinstance(layer, nn.Linear):
        return QLinear(weight, layer.bias, act)
    if isinstance(layer, nn.Conv2d):
        return QConv2d.like(layer, weight, act)
    if isinstance(layer, nn.Embedding):
        return QEmbedding(weight, layer.weight.dtype)
    raise RecipeError(f"only Linear, Conv2d and Embedding layers are quantized; got {type(layer).__name__}")


def _chosen(model: nn.Module, choose: TensorFormat | Mapping[str, TensorFormat] | Chooser) -> dict[str, TensorFormat]:
    layers = {
        name: layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, QUANTIZABLE) and name
    }
    if isinstance(choose, Mapping):
        unknown = next((name for name in choose if name not in layers), None)
        if unknown is not None:
            raise RecipeError(f"the model has no Linear, Conv2d or Embedding layer {unknown!r}")
        return dict(choose)
    chosen = {}
    for name, layer in layers.items():
        if isinstance(choose, TensorFormat):
            fmt = None if isinstance(layer, nn.Embedding) else choose
        else:
            fmt = choose(name, layer)
        if fmt is not None:
            chosen[name] = fmt
    if not chosen:
        raise RecipeError(f"no layer of this {type(model).__name__} was chosen to be quantized")
    return chosen


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _matrix(layer: nn.Module) -> Tensor:
    return _weight(layer).detach().flatten(1)


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor), "quantizable layers have a weight"
    return layer.weight


def _hook(statistics: Statistics, layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        if isinstance(layer, nn.Conv2d):
            x = patches(x, layer.kernel_size, *geometry(layer))
        statistics.add(x)

    return add


def replace_layer(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the submodule with that dotted name is."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)
