"""MatGPTQ (arXiv 2602.03537): one 8-bit code whose top bits are good models of fewer bits.

A consumer with less memory keeps the r most significant bits of every code, rounded and saturated (`slice_codes`).  For every weight the
8-bit code is chosen that has the least Σ λ_r (w - ŵ_r)² over the target widths r, and the OBS loop carries the mean error of the slices to
the columns still to come.

The best of all 256 codes is found without trying them: Σ λ_r (u - v_r(q))² is, less a term that all codes share, the line
b(q) - 2 a(q) u of u = w / s, so the best code is read off the lower envelope of 256 lines, by bisection.
Differs from the paper: scales are searched for the least weighted error of all slices (`search` off: as the rule gives them), because the
grid of the low slices is coarse and wants to clip what the 8-bit one need not; the mean error carried on is weighted by λ as the choice is
(`weighted` off: plain), which suits the 8-bit slice; codes are two's complement, the same numbers as the paper's offset ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.formats.integer import Int
from anybit.quantize import check, obs, rtn
from anybit.quantize.gptq import effective
from anybit.quantize.result import Quantized, Report
from anybit.quantize.rule import Power, power_for
from anybit.quantize.statistics import Statistics
from anybit.tensors import blocks

MASTER = 8
"""Bits of the stored code."""

FORMAT = "int8/g128"

SHARES = tuple(1 - 0.05 * i for i in range(14))
"""Of the scale that puts the largest weight on the largest code."""


@dataclass(frozen=True)
class Options:
    """bits: the widths to be served, as "3,4,8".  weights: λ of each, in the same order.

    weighted: carry on the λ-weighted mean error of the slices, else their plain mean (the paper).  scale_rule: of the 8-bit grid, which all
    slices share.  search: shrink it block by block where the slices then err less, λ and the Hessian's diagonal weighing.
    damping, block, act_order: as of `gptq.Options`.
    """

    bits: str = "3,4,8"
    weights: str = "1,1,1"
    weighted: bool = True
    search: bool = True
    damping: float = 0.01
    block: int = 128
    act_order: bool = True
    scale_rule: tensors.ScaleRule = "absmax"
    power: Power = ""

    def __post_init__(self) -> None:
        self.targets()

    def targets(self) -> list[tuple[int, float]]:
        """(width, λ) of every target, ascending. ValueError where they make no sense."""
        try:
            bits = [int(part) for part in self.bits.split(",")]
            weights = [float(part) for part in self.weights.split(",")]
        except ValueError:
            raise ValueError(
                f"bits and weights are numbers with commas between; got {self.bits!r}, {self.weights!r}"
            ) from None
        if len(bits) != len(weights):
            raise ValueError(f"there are {len(bits)} widths and {len(weights)} weights; each width has its own")
        if len(set(bits)) != len(bits) or not all(1 <= b <= MASTER for b in bits):
            raise ValueError(f"widths are different numbers of 1 to {MASTER} bits; got {self.bits}")
        if not all(w >= 0 for w in weights) or not sum(weights) < float("inf") or sum(weights) == 0:
            raise ValueError(f"weights are numbers of at least 0, not all 0; got {self.weights}")
        return sorted(zip(bits, weights, strict=True))


def slice_codes(codes: Tensor, bits: int) -> Tensor:
    """The top `bits` bits of two's complement 8-bit codes (int, -128..127), rounded half up and saturated: -2^(bits-1)..2^(bits-1)-1."""
    if not 1 <= bits <= MASTER:
        raise RecipeError(f"a slice of an 8-bit code has 1 to {MASTER} bits; got {bits}")
    shift = MASTER - bits
    rounded = codes if shift == 0 else (codes + (1 << (shift - 1))) >> shift
    return rounded.clamp(max=(1 << (bits - 1)) - 1)


def stores(fmt: TensorFormat, name: str) -> None:
    """RecipeError where the format of a matrix is not one of 8-bit integers with scales and no zero points."""
    if not isinstance(fmt.element, Int) or str(fmt.element.name) != f"int{MASTER}" or fmt.zero is not None:
        raise RecipeError(
            f"{name}: matgptq stores int{MASTER} codes with scales and no zero points, such as {FORMAT}; got {fmt}"
        )


def quantize(
    weight: Tensor,
    fmt: TensorFormat,
    stats: Statistics | None,
    options: Options | None = None,
    *,
    name: str = "layer",
    factor: obs.Factor | None = None,
) -> Quantized:
    """Quantize weight [N, K] to an int8 format whose slices at the target widths are good too.

    The report's error is that of the 8-bit codes; `details` has that of every target.  Raises RecipeError for another element format, and
    as `gptq.quantize`.
    """
    options = options or Options()
    check.weight(weight, name)
    stats = check.statistics(stats, weight.shape[1], "matgptq", name)
    stores(fmt, name)
    hessian = stats.hessian
    if factor is None:
        factor = obs.factorize(hessian, damping=options.damping, act_order=options.act_order, name=name)
    dtype = torch.promote_types(torch.promote_types(weight.dtype, hessian.dtype), torch.float32)
    start = weight.to(dtype, copy=True)
    start[:, factor.dead] = 0
    importance = hessian.diagonal().float()
    rule = options.scale_rule
    scale, _, tensor_scale = tensors.block_scales(start.float(), fmt, rule, importance, power_for(options.power, fmt))
    envelope = Envelope(options.targets(), options.weighted, dtype)
    if options.search:
        scale = _searched(start, fmt, scale, tensor_scale, envelope, importance)
    rows, columns = start.shape
    wide = fmt.block[1] or columns
    each = effective(scale, tensor_scale).to(dtype).repeat_interleave(fmt.block[0] or rows, 0)[:rows].T.contiguous()
    divisor = torch.where(each == 0, torch.ones((), dtype=dtype), each)
    codes = torch.zeros(columns, rows, dtype=torch.int64)

    def round_column(column: int, values: Tensor) -> Tensor:
        block = column // wide
        codes[column] = envelope.codes(values / divisor[block])
        return envelope.mean[codes[column] + 128] * each[block]

    obs.propagate(start, factor, round_column, block=options.block)
    exact = codes.T * each.repeat_interleave(wide, 0)[:columns].T
    q = tensors.encode(exact.float(), fmt, scale, None, tensor_scale)
    errors = {f"error_{bits}_bits": rtn.relative_error(start, q.at_bits(bits), stats) for bits, _ in options.targets()}
    details = {"damping": factor.damping, "escalations": factor.escalations, "dead_columns": int(factor.dead.sum())}
    return Quantized(q, Report("matgptq", str(fmt), rtn.relative_error(start, q, stats), {**details, **errors}))


def _searched(
    w: Tensor, fmt: TensorFormat, scale: Tensor, tensor_scale: Tensor | None, envelope: Envelope, importance: Tensor
) -> Tensor:
    """The scales [row blocks, column blocks], each shrunk to the share in `SHARES` at which its block's slices err least."""
    assert fmt.scale is not None, "an int8 format with blocks has scales"
    cut = blocks.blocked(w, fmt.block)
    weighing = blocks.blocked(importance.to(w.dtype).expand(w.shape), fmt.block)
    best = scale
    lowest = torch.full_like(scale, float("inf"), dtype=w.dtype)
    for share in SHARES:
        tried = fmt.scale.round(scale * share)
        each = effective(tried, tensor_scale).to(w.dtype)[:, None, :, None]
        u = cut / torch.where(each == 0, torch.ones((), dtype=w.dtype), each)
        total = (envelope.error(u) * each.square() * weighing).sum((1, 3))
        better = total < lowest
        lowest = torch.where(better, total, lowest)
        best = torch.where(better, tried, best)
    return best


class Envelope:
    """The best code for every u = weight / scale, and the mean value of a code's slices.

    mean: [256] by code + 128, in units of the scale; λ-weighted or plain.
    """

    def __init__(self, targets: Sequence[tuple[int, float]], weighted: bool, dtype: torch.dtype) -> None:
        codes = torch.arange(-128, 128)
        total = sum(weight for _, weight in targets)
        a = torch.zeros(256, dtype=torch.float64)
        b = torch.zeros(256, dtype=torch.float64)
        plain = torch.zeros(256, dtype=torch.float64)
        for bits, weight in targets:
            value = slice_codes(codes, bits).double() * 2.0 ** (MASTER - bits)
            a += weight / total * value
            b += weight / total * value.square()
            plain += value / len(targets)
        kept = _lower_envelope(a.tolist(), b.tolist())
        left, right = kept[:-1], kept[1:]
        cuts = [(b[j] - b[i]).item() / (2 * (a[j] - a[i]).item()) for i, j in zip(left, right, strict=True)]
        self._cuts = torch.tensor(cuts, dtype=dtype)
        self._kept = torch.tensor(kept) - 128
        self.mean = (a if weighted else plain).to(dtype)
        self._a, self._b = a.to(dtype), b.to(dtype)

    def codes(self, u: Tensor) -> Tensor:
        """The codes (int64, -128..127) of least weighted error."""
        return self._kept[torch.bucketize(u, self._cuts)]

    def error(self, u: Tensor) -> Tensor:
        """The λ-weighted mean squared error of the slices of the best codes, in units of the squared scale."""
        index = self.codes(u) + 128
        return u.square() - 2 * self._a[index] * u + self._b[index]


def _lower_envelope(a: list[float], b: list[float]) -> list[int]:
    """Indices of the lines b - 2 a u that are lowest somewhere, from u = -infinity on; of equal lines the first.

    The slope falls with a, so lines enter the envelope by ascending a.
    """
    order = sorted(range(len(a)), key=lambda i: (a[i], b[i], i))
    hull: list[int] = []
    for i in order:
        if hull and a[i] == a[hull[-1]]:
            continue
        while len(hull) >= 2:
            h, m = hull[-2], hull[-1]
            # m is nowhere lowest where i overtakes h no later than m does.
            if (b[i] - b[h]) * (a[m] - a[h]) <= (b[m] - b[h]) * (a[i] - a[h]):
                hull.pop()
            else:
                break
        hull.append(i)
    return hull
