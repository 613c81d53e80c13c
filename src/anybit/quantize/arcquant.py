"""ARCQuant (arXiv 2601.07475): weights in NVFP4 for activations in NVFP4 with residual channels (`transforms.residual`), channels sorted by
size beforehand (`transforms.order`).

The weights are rounded as they would be without residual channels, whose copies take the codes of their columns; here by GPTQ, since with
residual channels the error of the weights is what remains (the paper rounds to nearest).  Run with `--act nvfp4` on the torch executor;
where activations are exact, nothing is left over and the residual channels are idle.
"""

from __future__ import annotations

from anybit.quantize import gptq

FORMAT = "nvfp4"


Options = gptq.Options
"""Those of GPTQ."""

quantize = gptq.under("arcquant")
"""Quantize weight [N, K]; errors as `gptq.quantize`."""
