"""Sorting the channels of keys, queries and values of a model over its fold graph (`transforms.key_order`)."""

from __future__ import annotations

import torch
from torch import Tensor

from anybit.models import Model
from anybit.models.fold_graph import Part, Site, sites
from anybit.models.online import KeyOrder
from anybit.models.rewriting import Rewrite
from anybit.transforms.key_order import Options, sorted_channels, unit_sizes
from anybit.transforms.order import descending


def sorted_keys(model: Model, rewrite: Rewrite, options: Options) -> list[KeyOrder]:
    """Sort what the options say; what is left to run time."""
    here = sites(model.plan)
    if options.values:
        for site in here:
            if site.kind == "vo":
                rewrite.permute(site, descending(_sizes(model, rewrite, site)))
    if not options.keys:
        return []
    left: list[KeyOrder] = []
    for layer in range(model.plan.layers):
        found = [site for site in here if site.kind == "qk" and site.layer == layer]
        pairs = {site.head: site for site in found if "reorder" in site.allows}
        alone = {site.head: site for site in found if "reorder" not in site.allows}
        sizes = {id(site): _sizes(model, rewrite, site) for site in found}
        heads = [(pairs.get(h, pairs.get(-1)), alone.get(h, alone.get(-1))) for h in range(model.plan.kv_heads)]
        none = torch.zeros(0)
        if options.mode == "after":
            each = [tuple(none if site is None else sizes[id(site)] for site in both) for both in heads]
            left.append(KeyOrder(layer, False, tuple(tuple(sorted_channels(*two).tolist()) for two in each)))
            continue
        for site in alone.values():
            rewrite.permute(site, descending(sizes[id(site)]))
        for site in pairs.values():
            rewrite.reorder(site, descending(sizes[id(site)]))
        if pairs:
            orders = [descending(sizes[id(site)]) for site, _ in heads if site is not None]
            left.append(KeyOrder(layer, True, tuple(tuple(order.tolist()) for order in orders)))
    return left


def _sizes(model: Model, rewrite: Rewrite, site: Site) -> Tensor:
    """How large each unit of a site is: by its rows, or by the gain of the norm that makes it."""
    made = site.made[0]
    if made.gain:
        return (rewrite.vector(made.name) + made.offset).abs().double()[made.index].square().sum(1).sqrt()
    bias = next((rewrite.vector(part.name) for part in site.made[1:]), None)
    return unit_sizes(rewrite.vector(made.name), bias, _gain_before(model, rewrite, made), made.index)


def _gain_before(model: Model, rewrite: Rewrite, made: Part) -> Tensor | None:
    """The gain of the norm whose output the linear that makes a part reads."""
    ops = model.plan.ops
    at = next(i for i, op in enumerate(ops) if op.kind == "linear" and op.weights[0].name == made.name)
    before = next((op for op in reversed(ops[:at]) if op.output == ops[at].inputs[0]), None)
    if before is None or before.kind != "rms_norm":
        return None
    return rewrite.vector(before.weights[0].name) + float(before.attrs.get("offset", 0.0))
