"""SmoothQuant (Xiao et al., arXiv 2211.10438): 8-bit weights and activations after the smoothing of `transforms.smooth`.

The rounding itself is plain: one scale an output channel, absmax.  Run with `--act int8/row` for one scale a token.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize import rtn
from anybit.quantize.result import Quantized
from anybit.quantize.rule import Power
from anybit.quantize.statistics import Statistics

FORMAT = "int8/row"


@dataclass(frozen=True)
class Options:
    """scale_rule, power: as of `rtn.Options`; the paper's rule is absmax."""

    scale_rule: tensors.ScaleRule = "absmax"
    power: Power = ""


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None = None,
    options: Options | None = None,
    *,
    name: str = "layer",
) -> Quantized:
    """Round weight [N, K] to nearest. Raises RecipeError for NaN."""
    options = options or Options()
    done = rtn.quantize(weight, fmt, stats, rtn.Options(options.scale_rule, power=options.power), name=name)
    return done.by("smoothquant")
