"""What of a quantized weight is learned: its roundings, straight through or relaxed, and its scales.

A weight starts as the codes that another quantizer (GPTQ) chose and stays on its grid: value = (code - zero) * scale * exp(a), a learned.
Its code is round(u + V), u being the unrounded weight in units of its scale where that rounds to the same code, else the code itself;
gradients pass the rounding straight through (AdaQuant, arXiv 2006.10518; AutoRound, arXiv 2309.05516).  Relaxed it is the code below u,
and h(V) of the way to the one above (AdaRound, arXiv 2004.10568, equations 21 to 24).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anybit import tensors
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors import QTensor

BEYOND = 0.1
"""How far the stretched sigmoid reaches below 0 and above 1 before it is clipped: gradients do not die where h gets there."""
SLOPE = 0.3
"""Of h(V) where V = 0, by which a rate in steps of the grid becomes one of V."""
FIRST_BETA, LAST_BETA, WARM_UP = 20.0, 2.0, 0.2
"""Of the penalty on roundings that are still open: its exponent falls, after a share of the steps without penalty."""


class LearnedScales:
    """The scales of a quantized weight, with what is learned of them.

    stretch: a [row blocks, column blocks], each scale being exp(a) times the one it started from, on the grid of scales.
    """

    def __init__(self, start: QTensor) -> None:
        """start: a weight whose format has scales."""
        assert start.scale is not None and start.format.scale is not None, "a format with scales"
        self._grid = start.format.scale
        self._stored = self._grid.decode(start.scale) if start.scale.dtype == torch.uint8 else start.scale
        self._stored = self._stored.float()
        self._factor = 1.0 if start.tensor_scale is None else float(start.tensor_scale)
        self._over = start
        self.stretch = torch.zeros_like(self._stored, requires_grad=True)

    def each(self) -> Tensor:
        """The scale of every weight, with the tensor scale, as `over_all`; differentiable."""
        return over_all(self.stored() * self._factor, self._over)

    def stored(self) -> Tensor:
        """[row blocks, column blocks] as stored, without the tensor scale; differentiable."""
        return straight(self._grid.round, self._stored * torch.exp(self.stretch))


def over_all(blocks: Tensor, q: QTensor) -> Tensor:
    """Block parameters of a quantized weight [row blocks, column blocks] for its elements [N, K]; a dimension that is one block stays 1."""
    tall, wide = q.format.block
    blocks = blocks.repeat_interleave(tall, 0)[: q.row_count] if tall else blocks
    return blocks.repeat_interleave(wide, 1)[:, : q.col_count] if wide else blocks


class LearnedWeight:
    """One weight on its grid, with what is learned of it.

    offset: V [N, K] added before rounding.  scales: None where the format has none.
    """

    def __init__(self, weight: Tensor, start: QTensor) -> None:
        """weight: float [N, K], what was quantized.  start: its codes and scales."""
        self.format: TensorFormat = start.format
        self._start = start
        fmt = start.format
        zeros = start.zeros()
        self._zero = None if zeros is None else over_all(zeros, start)
        self.scales = None if start.scale is None else LearnedScales(start)
        code = fmt.element.decode(start.unpacked()).float()
        scale = over_all(start.scales(), start)
        exact = weight.float() / torch.where(scale == 0, torch.ones(()), scale)
        exact = exact if self._zero is None else exact + self._zero
        # Where the start rounds as the weight alone would, its place between two codes is kept: it says how near the other code is.
        self._unrounded = torch.where(fmt.element.round(exact) == code, exact, code)
        # Codebooks and floats have steps of their own sizes: V counts the mean one.
        values = fmt.element.values
        self._step = float(values.max() - values.min()) / max(1, len(set(values.tolist())) - 1)
        self.offset = torch.zeros(start.row_count, start.col_count, requires_grad=True)

    def value(self) -> Tensor:
        """[N, K] the weight as its codes and scales now give it; differentiable."""
        return self._valued(straight(self.format.element.round, self._unrounded + self.offset * self._step))

    def harden(self) -> QTensor:
        """The codes and scales themselves."""
        with torch.no_grad():
            scale = None if self.scales is None else self.scales.stored()
            value = self._valued(self._codes())
            return tensors.encode(value, self.format, scale, self._start.zeros(), self._start.tensor_scale)

    def penalty(self, share: float) -> Tensor | None:
        """What is added to the loss when this share of the steps is done."""
        return None

    def _codes(self) -> Tensor:
        return self.format.element.round(self._unrounded + self.offset * self._step)

    def _valued(self, code: Tensor) -> Tensor:
        code = code if self._zero is None else code - self._zero
        return code if self.scales is None else code * self.scales.each()


class RelaxedWeight(LearnedWeight):
    """One weight between the two codes that are next to it: h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1) of the way from the lower one.

    A penalty, 1 - |2h - 1|^beta, drives h to 0 or 1 while beta falls. It counts a weight by the square of the step that it is to decide,
    of the sum of all squared weights: as the relative error of a layer with uncorrelated inputs would.
    """

    def __init__(self, weight: Tensor, start: QTensor) -> None:
        """As of `LearnedWeight`."""
        super().__init__(weight, start)
        levels = torch.from_numpy(np.unique(self.format.element.values)).float()
        index = (torch.searchsorted(levels, self._unrounded.contiguous(), right=True) - 1).clamp(0, len(levels) - 2)
        self._low, self._gap = levels[index], levels[index + 1] - levels[index]
        share = ((self._unrounded - self._low) / self._gap).clamp(0, 1)
        up = self.format.element.round(self._unrounded) > self._low
        share = torch.where(
            up, share.clamp(min=0.5 + 1e-4), share.clamp(max=0.5 - 1e-4)
        )  # ties as the start broke them
        self.offset = torch.log((share + BEYOND) / (1 + BEYOND - share)).requires_grad_()
        self._cost = (self._gap * over_all(start.scales(), start)).square() / weight.float().square().sum().clamp(
            min=1e-30
        )

    def value(self) -> Tensor:
        """[N, K] between codes; differentiable."""
        return self._valued(self._low + self._way() * self._gap)

    def penalty(self, share: float) -> Tensor | None:
        """None while the steps warm up."""
        if share < WARM_UP:
            return None
        beta = FIRST_BETA + (LAST_BETA - FIRST_BETA) * (share - WARM_UP) / (1 - WARM_UP)
        return (self._cost * (1 - (2 * self._way() - 1).abs() ** beta)).sum()

    def _way(self) -> Tensor:
        return ((1 + 2 * BEYOND) * torch.sigmoid(self.offset) - BEYOND).clamp(0, 1)

    def _codes(self) -> Tensor:
        return self._low + (self._way() > 0.5) * self._gap


def straight(rounding: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """rounding(x), with the gradient of x."""
    return x + (rounding(x.detach()) - x.detach())


def rounded(x: Tensor, fmt: TensorFormat) -> Tensor:
    """x [..., columns] as the format holds it, every row by itself, with the gradient of x; not a number where x is not finite."""
    try:
        return straight(lambda v: tensors.quantize(v.reshape(-1, v.shape[-1]), fmt).dequantize().reshape(v.shape), x)
    except FormatError:
        if bool(torch.isfinite(x).all()):
            raise
        return x * float("nan")  # for which there are no scales; the trainer looks at the outputs
