"""How the pipeline quantizes one weight matrix with a recipe's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize import obs, rtn, table
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics
from anybit.recipes.items import Item


class Quantizer:
    """A method with its options. The factored Hessian of the last statistics is kept: several matrices and formats
    share it.
    """

    def __init__(self, method: str, options: Mapping[str, Any]) -> None:
        self.method = table.get(method)
        self.options = self.method.parse(options)
        self._last: tuple[Statistics, obs.Factor] | None = None

    def __call__(self, item: Item, weight: Tensor, fmt: TensorFormat, stats: Statistics | None) -> Quantized:
        """Quantize the item's weight [N, K].

        A table that rows are looked up in is rounded to nearest whatever the method: making up for an error
        elsewhere in its row keeps the row's product with the layer's usual inputs, but it moves the row itself.
        """
        if self.method.needs == "weights" or stats is None or item.role in ("embedding", "tied"):
            chosen = rtn.Options(scale_rule=self.options.scale_rule, importance=item.role != "tied")
            return rtn.quantize(weight, fmt, stats, chosen, name=item.name)
        if self._last is None or self._last[0] is not stats:
            factor = obs.factorize(
                stats.hessian, damping=self.options.damping, act_order=self.options.act_order, name=stats.name
            )
            self._last = (stats, factor)
        return self.method.quantize(weight, fmt, stats, self.options, name=item.name, factor=self._last[1])
