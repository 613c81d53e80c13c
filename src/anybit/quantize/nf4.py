"""NF4 (Dettmers et al., QLoRA, arXiv 2305.14314): 16 levels at the quantiles of a normal distribution, absmax in blocks of 64, and the
block scales quantized to 8 bits themselves ("double quantization").

Differs from the paper: scales are 8-bit floats (e4m3fn) under one float32 scale of the tensor, where the paper subtracts their mean and
uses a dynamic map under a scale for every 256 of them: 4.125 bits a weight in place of 4.127.
"""

from __future__ import annotations

from torch import Tensor

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import rtn
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics

FORMAT = "nf4/g64:e4m3fn+t"


Options = rtn.Absmax

_rounded = rtn.under("nf4")


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None = None,
    options: Options | None = None,
    *,
    name: str = "layer",
) -> Quantized:
    """Round weight [N, K] to nearest. Raises RecipeError for another element format than nf4, or NaN."""
    if fmt.element.name != "nf4":
        raise RecipeError(f"{name}: the method nf4 quantizes to nf4, such as {FORMAT}; got {fmt}")
    return _rounded(weight, fmt, stats, options, name=name)
