"""Block floating point with sorted key channels (arXiv 2403.20137): weights in BFP16, keys to be cached in BFP12.

BFPn is one 8-bit exponent for a block and two's-complement mantissas, n counting both: E = floor(log2 max|x|), mantissas of m bits in units
of 2^(E - m + 2), rounded to nearest even and saturated.  That is `int8/g32:e8m0` and `int4/g32:e8m0` here.  What the method adds is the
order of key channels (`transforms.key_order`); the rounding is plain, and no calibration is needed.  Run with
`--executor torch --kv int4/g32:e8m0,fp32` for keys in BFP12, blocks of at most a head's channels.
"""

from __future__ import annotations

from anybit.quantize import rtn

FORMAT = "int8/g32:e8m0"

Options = rtn.Absmax

quantize = rtn.under("block_quant_outliers")
"""Round weight [N, K] to nearest. Raises RecipeError for NaN."""
