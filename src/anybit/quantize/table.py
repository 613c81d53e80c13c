"""The quantizers by name, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anybit import options, tensors
from anybit.errors import RecipeError
from anybit.quantize import gptq, rtn
from anybit.quantize.result import Quantized
from anybit.quantize.rule import POWERS


@dataclass(frozen=True)
class Method:
    """A quantizer: quantize(weight, fmt, stats, options) -> Quantized.

    needs: "weights" alone, the "inputs" of the layer too (statistics), or their "hessian", factored.  options: its frozen
    dataclass of options, all with defaults.  transforms: those that belong to it (`transforms.table`), where a recipe names none.
    """

    name: str
    quantize: Callable[..., Quantized]
    needs: Literal["weights", "inputs", "hessian"]
    paper: str
    options: type
    transforms: tuple[str, ...] = ()

    def parse(self, given: Mapping[str, Any]) -> Any:
        """An options value from a mapping; RecipeError naming an unknown option or a value that is not allowed."""
        return options.parse(self.name, self.options, given, ALLOWED)


ALLOWED = {
    "scale_rule": tensors.SCALE_RULES,
    "power": POWERS,
    "groups": ("static", "dynamic"),
}

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("rtn", rtn.quantize, "weights", "round to nearest", rtn.Options),
        Method("gptq", gptq.quantize, "hessian", "Frantar et al. 2022, arXiv 2210.17323", gptq.Options),
    )
}


def get(name: str) -> Method:
    """The method of that name; RecipeError listing the names otherwise."""
    if name not in METHODS:
        raise RecipeError(f"unknown quantization method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]
