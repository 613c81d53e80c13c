"""The scale rule "exact": of all scales that the format of the scale can hold, the one of least sum(importance * (x - dequantized)^2).

Scales of many digits (fp32, fp16, bf16): the sweep of `formats.sweep` finds the best real scale, which is then rounded; beside the best,
the error is flat, so rounding costs a few units of the scale's last place, squared. Scales of 8 bits (e8m0, e4m3fn, …): their values are so
coarse that the best real scale says little; all of them from 1/8 to twice the absmax scale are tried.
Posits, which do not round to the nearest value, get the best scale for rounding that does, if it beats absmax.
Formats that are not symmetric also take the mirrored grid (a negative scale) where it is nearer and the scale has a sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Exponent, Float, TensorFormat
from anybit.formats.sweep import sweep
from anybit.tensors import block_errors, blocks
from anybit.tensors.scale_search import Best, importance_weights, mirrored
from anybit.tensors.scales import load_scale, range_parameters, store_scale

LARGEST = 1 << 22
"""Numbers of a block times values of the alphabet that are sorted at once, at most."""


def exact_parameters(
    matrix: Tensor, fmt: TensorFormat, low: Tensor, high: Tensor, factor: Tensor | None, importance: Tensor | None
) -> tuple[Tensor, None]:
    """(scale [row blocks, col blocks], None) of matrix [rows, cols]; arguments as of `scale_search.mse_parameters`.

    FormatError with zero points, and for blocks too large to sort.
    """
    rows, cols = matrix.shape
    if fmt.zero is not None:
        raise FormatError(f"the scale rule 'exact' knows no zero points; use 'mse' for {fmt}")
    assert fmt.scale is not None, "callers have refused unscaled formats"
    fine = not isinstance(fmt.scale, Exponent) and fmt.scale.bits > 8
    size = prod((side or whole for side, whole in zip(fmt.block, (rows, cols), strict=True)))
    if fine and (fmt.bits > 8 or size * len(fmt.element.values) > LARGEST):
        raise FormatError(f"the blocks of {fmt} are too large to sort ({size} numbers); use the scale rule 'mse'")
    weights = importance_weights(importance, rows, cols, fmt)
    scales, _ = range_parameters(low, high, fmt, factor)
    for part, errors in block_errors.bands(matrix, weights, fmt, factor):
        scale = scales[part]
        best = Best(scale, None, torch.ones_like(scale), errors.of(scale, None))
        candidates = torch.stack(list(_real(matrix, weights, fmt, factor, errors.band) if fine else _all(scale, fmt)))
        best = best.or_best(
            candidates, None, torch.ones(len(candidates), device=scale.device), errors.of_each(candidates, None)
        )
        scales[part] = best.scale
    return scales, None


def _all(scale: Tensor, fmt: TensorFormat) -> Iterator[Tensor]:
    """Every scale of an 8-bit format from an eighth to twice the given ones, and their mirror images."""
    kind = fmt.scale
    assert kind is not None and isinstance(kind, Exponent | Float)
    binade = 1 if isinstance(kind, Exponent) else 1 << kind.mantissa_bits
    lowest = 0 if isinstance(kind, Exponent) else 1
    highest = int(kind.encode(torch.tensor([kind.max]))[0])
    codes = kind.encode(scale.abs()).int()
    for step in range(-3 * binade, binade + 1):
        candidate = load_scale((codes + step).clamp(lowest, highest).to(torch.uint8), kind)
        candidate = torch.where(scale == 0, 0.0, candidate)
        yield candidate
        if mirrored(fmt):
            yield -candidate


def _real(
    matrix: Tensor, weights: Tensor | None, fmt: TensorFormat, factor: Tensor | None, band: list[tuple[int, int]]
) -> Iterator[Tensor]:
    """The best real scale of each block of the band as the scale's format stores it, and that of the mirrored grid."""
    assert fmt.scale is not None
    a, b = band[0][0], band[-1][1]
    height = fmt.block[0] or matrix.shape[0]
    shape = (min(height, b - a), fmt.block[1])

    def flat(part: Tensor) -> Tensor:
        cut = blocks.blocked(part.float(), shape)
        return cut.permute(0, 2, 1, 3).reshape(cut.shape[0] * cut.shape[2], cut.shape[1] * cut.shape[3])

    weight = None
    if weights is not None:
        weight = flat((weights if weights.shape[0] == 1 else weights[a:b]).expand(b - a, -1)).cpu().numpy()
    values = flat(matrix[a:b])
    grid = (-(-(b - a) // shape[0]), -1)
    for sign in (1.0, -1.0) if mirrored(fmt) else (1.0,):
        found = sweep((sign * values).cpu().numpy(), fmt.element.values, weight)
        scale = sign * torch.from_numpy(found.scale).to(matrix.device).reshape(grid)
        scale = (scale if factor is None else scale / factor).float()
        yield load_scale(store_scale(scale, fmt.scale), fmt.scale)
