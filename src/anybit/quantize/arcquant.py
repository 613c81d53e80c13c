"""ARCQuant (arXiv 2601.07475): weights in NVFP4 for activations in NVFP4 with residual channels (`transforms.residual`).

The weights are rounded as they would be without residual channels, whose copies take the codes of their columns; here by GPTQ, since with
residual channels the error of the weights is what remains (the paper rounds to nearest).  Run with `--act nvfp4` on the torch executor;
where activations are exact, nothing is left over and the residual channels are idle.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anybit.formats import TensorFormat
from anybit.quantize import gptq, obs
from anybit.quantize.result import Quantized
from anybit.quantize.statistics import Statistics

FORMAT = "nvfp4"


@dataclass(frozen=True)
class Options(gptq.Options):
    """Those of GPTQ."""


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None,
    options: Options | None = None,
    *,
    name: str = "layer",
    factor: obs.Factor | None = None,
) -> Quantized:
    """Quantize weight [N, K]; errors as `gptq.quantize`."""
    done = gptq.quantize(weight, fmt, stats, options or Options(), name=name, factor=factor)
    return done.by("arcquant")
