"""The transforms by name, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from anybit import options
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.transforms import awq, block_affine, hadamard, key_order, order, residual, smooth, split


@dataclass(frozen=True)
class Transform:
    """A rewrite of a model that keeps its function.

    needs: "weights" alone or the "inputs" of layers, measured on calibration text.  options: its frozen dataclass, all with defaults.
    fits(options, width, name): RecipeError where the inputs of a layer of a block, so many, are not what it can change; None takes all.
    stores(options, fmt, name): RecipeError where a matrix cannot have that format behind it; None allows all.
    """

    name: str
    needs: Literal["weights", "inputs"]
    paper: str
    options: type
    fits: Callable[[Any, int, str], None] | None = None
    stores: Callable[[Any, TensorFormat, str], None] | None = None

    def parse(self, given: Mapping[str, Any]) -> Any:
        """An options value from a mapping; RecipeError naming an unknown option or a value that is not allowed."""
        return options.parse(f"the transform {self.name}", self.options, given, {})


TRANSFORMS: Mapping[str, Transform] = {
    transform.name: transform
    for transform in (
        Transform("smooth", "inputs", "Xiao et al. 2022, arXiv 2211.10438", smooth.Options),
        Transform("awq", "inputs", "Lin et al. 2023, arXiv 2306.00978", awq.Options),
        Transform("permute", "inputs", "channels in the order of their mean square", order.Options),
        Transform("sort_keys", "weights", "arXiv 2403.20137", key_order.Options),
        Transform("hadamard", "weights", "QuaRot, Ashkboos et al. 2024, arXiv 2404.00456", hadamard.Options),
        Transform("split", "inputs", "LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339", split.Options),
        Transform("residual", "inputs", "ARCQuant, arXiv 2601.07475", residual.Options, stores=residual.Options.stores),
        Transform(
            "block_affine", "inputs", "BATQuant, arXiv 2603.16590", block_affine.Options, block_affine.Options.fits
        ),
        Transform("rotate_inputs", "weights", "ITQ3_S, Yoon 2026, arXiv 2603.27914", hadamard.InputOptions),
    )
}


def get(name: str) -> Transform:
    """The transform of that name; RecipeError listing the names otherwise."""
    if name not in TRANSFORMS:
        raise RecipeError(f"unknown transform {name!r}; known: {', '.join(TRANSFORMS)}")
    return TRANSFORMS[name]
