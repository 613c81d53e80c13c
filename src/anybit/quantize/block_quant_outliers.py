"""Block floating point with sorted key channels (arXiv 2403.20137): weights in BFP16, keys to be cached in BFP12.

BFPn is one 8-bit exponent for a block and two's-complement mantissas, n counting both: E = floor(log2 max|x|), mantissas of m bits in units
of 2^(E - m + 2), rounded to nearest even and saturated.  That is `int8/g32:e8m0` and `int4/g32:e8m0` here.  What the method adds is the
order of key channels (`transforms.key_order`); the rounding is plain, and no calibration is needed.  Run with
`--executor torch --kv int4/g32:e8m0,fp32` for keys in BFP12, blocks of at most a head's channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anybit import tensors
from anybit.formats import TensorFormat
from anybit.quantize import rtn
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics

FORMAT = "int8/g32:e8m0"


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
    """Round weight [N, K] to nearest. Raises RecipeError for NaN."""
    options = options or Options()
    done = rtn.quantize(weight, fmt, stats, rtn.Options(options.scale_rule), name=name)
    return done.by("block_quant_outliers")
