"""The quantizers by name, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from anybit import options, tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import (
    arcquant,
    awq,
    batquant,
    block_quant_outliers,
    distill,
    gptq,
    gradient_ptq,
    itq3_s,
    llm_int8,
    matgptq,
    matgptq_distill,
    nf4,
    rtn,
    smoothquant,
)
from anybit.quantize.reconstruct import Reconstructed
from anybit.quantize.result import Quantized
from anybit.quantize.rule import POWERS


@dataclass(frozen=True)
class Method:
    """A quantizer: quantize(weight, fmt, stats, options) -> Quantized.

    needs: "weights" alone, the "inputs" of the layer too (statistics), or their "hessian", factored.  options: its frozen
    dataclass of options, all with defaults.  transforms: those that belong to it (`transforms.table`) with their options, in order,
    where a recipe names none.
    weights: the format it is made for, where a recipe names neither a format nor a budget.
    refine: refine(parts, forward, targets, windows, options, name) learns a whole block from where `quantize` left it.
    finish: finish(parts, forward, targets, windows, options, told) learns the whole model from where the blocks were left.
    stores: stores(fmt, name) raises RecipeError for a format that the method cannot give a matrix; None where it takes all.
    """

    name: str
    quantize: Callable[..., Quantized]
    needs: Literal["weights", "inputs", "hessian"]
    paper: str
    options: type
    transforms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: str | None = None
    refine: Callable[..., Reconstructed] | None = None
    finish: Callable[..., Reconstructed] | None = None
    stores: Callable[[TensorFormat, str], None] | None = None

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
        Method(
            "gradient_ptq",
            gradient_ptq.quantize,
            "hessian",
            "Yvinec et al. 2023, arXiv 2308.07662",
            gradient_ptq.Options,
            refine=gradient_ptq.refine,
        ),
        Method(
            "distill",
            distill.quantize,
            "hessian",
            "Liu et al. 2023, arXiv 2305.17888; Chen et al. 2024, arXiv 2407.11062",
            distill.Options,
            refine=gradient_ptq.refine,
            finish=distill.finish,
        ),
        Method(
            "awq", awq.quantize, "inputs", "Lin et al. 2023, arXiv 2306.00978", awq.Options, {"awq": {}}, awq.FORMAT
        ),
        Method(
            "smoothquant",
            smoothquant.quantize,
            "weights",
            "Xiao et al. 2022, arXiv 2211.10438",
            smoothquant.Options,
            {"smooth": {}},
            smoothquant.FORMAT,
        ),
        Method(
            "llm_int8",
            llm_int8.quantize,
            "weights",
            "Dettmers et al. 2022, arXiv 2208.07339",
            llm_int8.Options,
            {"split": {}},
            llm_int8.FORMAT,
        ),
        Method(
            "arcquant",
            arcquant.quantize,
            "hessian",
            "arXiv 2601.07475",
            arcquant.Options,
            {"permute": {"order": "sorted"}, "residual": {}},
            arcquant.FORMAT,
        ),
        Method(
            "batquant",
            batquant.quantize,
            "hessian",
            "arXiv 2603.16590",
            batquant.Options,
            {"block_affine": {}},
            batquant.FORMAT,
        ),
        Method(
            "block_quant_outliers",
            block_quant_outliers.quantize,
            "weights",
            "arXiv 2403.20137",
            block_quant_outliers.Options,
            {"sort_keys": {}},
            block_quant_outliers.FORMAT,
        ),
        Method("nf4", nf4.quantize, "weights", "Dettmers et al. 2023, arXiv 2305.14314", nf4.Options, {}, nf4.FORMAT),
        Method(
            "matgptq",
            matgptq.quantize,
            "hessian",
            "arXiv 2602.03537",
            matgptq.Options,
            {},
            matgptq.FORMAT,
            stores=matgptq.stores,
        ),
        Method(
            "matgptq_distill",
            matgptq_distill.quantize,
            "hessian",
            "arXiv 2602.03537; Nair et al. 2025, arXiv 2502.06786",
            matgptq_distill.Options,
            {},
            matgptq_distill.FORMAT,
            finish=matgptq_distill.finish,
            stores=matgptq.stores,
        ),
        Method(
            "itq3_s",
            itq3_s.quantize,
            "hessian",
            "Yoon 2026, arXiv 2603.27914",
            itq3_s.Options,
            {"rotate_inputs": {}},
            itq3_s.FORMAT,
        ),
    )
}


def get(name: str) -> Method:
    """The method of that name; RecipeError listing the names otherwise."""
    if name not in METHODS:
        raise RecipeError(f"unknown quantization method {name!r}; known: {', '.join(METHODS)}")
    return METHODS[name]
