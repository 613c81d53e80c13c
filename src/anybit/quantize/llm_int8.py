"""LLM.int8() (Dettmers et al., arXiv 2208.07339): 8-bit integers with a scale for every row of the weight and of the activations, the few
channels of large activations apart in 16 bits (`transforms.split`).

The rounding itself is plain: one scale an output channel, absmax.  Run with `--act int8/row` for one scale a token.
"""

from __future__ import annotations

from anybit.quantize import rtn

FORMAT = "int8/row"

Options = rtn.Absmax

quantize = rtn.under("llm_int8")
"""Round weight [N, K], whose outlier columns are zero by now, to nearest. Raises RecipeError for NaN."""
