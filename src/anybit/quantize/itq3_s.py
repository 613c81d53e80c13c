"""ITQ3_S (Yoon, arXiv 2603.27914): three bits a weight in a rotated basis.

Blocks of 256 input channels are multiplied by a Hadamard matrix, which makes heavy-tailed weights nearly normal, so that one small fixed
grid fits all blocks.  `transforms.rotate_inputs` does that: the weights are rotated beforehand and the activations as they come, which
is the same product as the paper's rotation of every weight block while it is loaded, Σ (H q)·x = Σ q·(H x), at a fraction of the work.
Differs from the paper: the grid is that of Lloyd and Max for normal numbers, 8 levels (the paper leaves its own grid open, and a plain
ternary one is worse than ordinary 3-bit integers on normal weights); random signs stand before the transform, so that a constant block is
no worst case; codes are chosen by GPTQ in the rotated basis, and coordinate descent goes over them.
"""

from __future__ import annotations

from dataclasses import dataclass

from anybit.quantize import gptq

LLOYD_MAX = (0.2451, 0.7560, 1.3440, 2.1520)
"""Magnitudes of the 8 levels of least squared error for N(0, 1) (Max, 1960, table I)."""

FORMAT = f"levels({','.join(repr(v) for v in (*(-x for x in reversed(LLOYD_MAX)), *LLOYD_MAX))})/g256"


@dataclass(frozen=True)
class Options(gptq.Options):
    """Those of GPTQ, which works in the rotated basis; with two passes of coordinate descent afterwards, which pay at 3 bits."""

    sweeps: int = 2


quantize = gptq.under("itq3_s", defaults=Options())
"""Quantize a rotated weight [N, K] with the statistics of its rotated inputs; errors as `gptq.quantize`."""
