"""The quantizers by name, one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anybit import tensors
from anybit.errors import RecipeError
from anybit.quantize import gptq, rtn
from anybit.quantize.result import Quantized
from anybit.quantize.rule import POWERS


@dataclass(frozen=True)
class Method:
    """A quantizer: quantize(weight, fmt, stats, options) -> Quantized.

    needs: "weights" alone or the "hessian" of the inputs too.  options: its frozen dataclass of options, all with
    defaults.
    """

    name: str
    quantize: Callable[..., Quantized]
    needs: Literal["weights", "hessian"]
    paper: str
    options: type

    def parse(self, given: Mapping[str, Any]) -> Any:
        """An options value from a mapping; RecipeError naming an unknown option or a value that is not allowed."""
        fields = {field.name: field for field in dataclasses.fields(self.options)}
        for key, value in given.items():
            if key not in fields:
                raise RecipeError(f"{self.name} has no option {key!r}; it has {', '.join(fields)}")
            default = fields[key].default
            kind = type(default)
            if not (isinstance(value, kind) or (kind is float and isinstance(value, int))) or (
                isinstance(value, bool) and kind is not bool
            ):
                raise RecipeError(
                    f"{self.name}: option {key} takes a {kind.__name__} such as {default!r}, got {value!r}"
                )
            allowed = ALLOWED.get(key)
            if allowed and value not in allowed:
                raise RecipeError(
                    f"{self.name}: option {key} is one of {', '.join(word or repr(word) for word in allowed)}, got {value!r}"
                )
        return self.options(**given)


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
