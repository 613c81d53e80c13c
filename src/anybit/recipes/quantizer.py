"""How the pipeline quantizes one weight matrix with a recipe's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize import obs, rounded_inputs, rtn, table
from anybit.quantize.result import Quantized
from anybit.quantize.rounded_inputs import RoundInputs
from anybit.quantize.statistics import Statistics
from anybit.recipes.items import Item


class Quantizer:
    """A method with its options. Factored Hessians are kept until `forget`: several matrices and formats share them.

    After `prepare`, calls for items with those statistics may come from several threads.
    """

    def __init__(self, method: str, options: Mapping[str, Any]) -> None:
        self.method = table.get(method)
        self.options = self.method.parse(options)
        # The statistics are held beside their factor, so that the identity that finds it is not given to another object.
        self._factors: dict[int, tuple[Statistics, obs.Factor]] = {}

    def rounds(self, item: Item) -> bool:
        """Whether the item is rounded to nearest.

        A table that rows are looked up in is, whatever the method: making up for an error elsewhere in its row keeps the row's
        product with the layer's usual inputs, but it moves the row itself.
        """
        return self.method.needs == "weights" or item.role in ("embedding", "tied")

    def prepare(self, item: Item, stats: Statistics | None) -> None:
        """Factor the Hessian that quantizing the item needs, unless it is there."""
        wanted = self.method.needs == "hessian" and not self.rounds(item)
        if stats is not None and wanted and id(stats) not in self._factors:
            factor = obs.factorize(
                stats.hessian, damping=self.options.damping, act_order=self.options.act_order, name=stats.name
            )
            self._factors[id(stats)] = (stats, factor)

    def inputs(self) -> RoundInputs | None:
        """How the method's options round the inputs of what it learns; None where they are exact."""
        return rounded_inputs.rounding(self.options)

    def forget(self) -> None:
        """Let go of the factored Hessians."""
        self._factors.clear()

    def __call__(self, item: Item, weight: Tensor, fmt: TensorFormat, stats: Statistics | None) -> Quantized:
        """Quantize the item's weight [N, K]; errors as the method's."""
        if self.rounds(item):
            given = {
                name: getattr(self.options, name) for name in ("scale_rule", "power") if hasattr(self.options, name)
            }
            chosen = rtn.Options(**given, importance=item.role != "tied")
            return rtn.quantize(weight, fmt, stats, chosen, name=item.name)
        if self.method.needs == "inputs":
            return self.method.quantize(weight, fmt, stats, self.options, name=item.name)
        self.prepare(item, stats)
        factor = None if stats is None else self._factors[id(stats)][1]
        return self.method.quantize(weight, fmt, stats, self.options, name=item.name, factor=factor)
