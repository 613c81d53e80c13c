"""LLM.int8() (Dettmers et al., arXiv 2208.07339): 8-bit integers with a scale for every row of the weight and of the activations, the few
channels of large activations apart in 16 bits (`transforms.split`).

The rounding itself is plain: one scale an output channel, absmax.  Run with `--act int8/row` for one scale a token.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize import rtn
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics

FORMAT = "int8/row"


@dataclass(frozen=True)
class Options:
    """scale_rule: as of `rtn.Options`; the paper's is absmax."""

    scale_rule: tensors.ScaleRule = "absmax"


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None = None,
    options: Options | None = None,
    *,
    name: str = "layer",
) -> Quantized:
    """Round weight [N, K], whose outlier columns are zero by now, to nearest. Raises RecipeError for NaN."""
    options = options or Options()
    done = rtn.quantize(weight, fmt, stats, rtn.Options(options.scale_rule), name=name)
    return done.by("llm_int8")
