"""One 8-bit code for several widths, learned for all of them together from the float model's predictions.

MatGPTQ (`matgptq`) chooses codes by the squared errors of single weights, column by column, and every width pays for the others.  From
there a few hundred steps lower Σ μ_r KL_r over the whole model, KL_r being the divergence of the predictions when every matrix is served
at r bits (the sum over widths of MatQuant, Nair et al., arXiv 2502.06786, whose weights are trained; here only codes and scales are).
Gradients pass every slice straight through to one number a weight, whose rounding is the code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anybit import tensors
from anybit.quantize import distill, gptq, matgptq
from anybit.quantize.learned import LearnedScales, straight
from anybit.quantize.matgptq import MASTER, slice_codes
from anybit.quantize.reconstruct import Forward, Outputs, Reconstructed, Settings, Targets, Told, descend
from anybit.tensors import QTensor

FORMAT = matgptq.FORMAT


@dataclass(frozen=True)
class Options(matgptq.Options):
    """losses: μ of each width, in the order of `bits`.  model_steps, model_rate, model_scale_rate, batch, held_out, seed: as of
    `distill.Options`; the rate is in steps of the narrowest width's grid."""

    bits: str = "2,3,4,8"
    weights: str = "0.01,0.1,0.3,1"
    losses: str = "1,3,15,100"
    model_steps: int = 400
    model_rate: float = 0.006
    model_scale_rate: float = 0.002
    batch: int = 4
    held_out: float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shares()
        self.whole()

    def shares(self) -> list[tuple[int, float]]:
        """(width, μ) of every target, ascending. ValueError where they make no sense."""
        return matgptq.Options(bits=self.bits, weights=self.losses).targets()

    def whole(self) -> Settings:
        """The settings of the pass over the whole model."""
        return distill.whole(self)


quantize = gptq.under("matgptq_distill", matgptq.quantize)


def finish(
    parts: Mapping[str, tuple[Tensor, QTensor]],
    forward: Forward,
    targets: Targets,
    windows: int,
    options: Options,
    told: Told | None = None,
) -> Reconstructed:
    """Learn all weights of a model; errors are the widths' divergences in nats a token, weighed by μ."""
    learner = _Slices({name: q for name, (_, q) in parts.items()}, forward, options)
    weigh = torch.tensor([share for _, share in options.shares()])
    start = {name: q for name, (_, q) in parts.items()}
    done = descend(learner, start, targets, windows, options.whole(), "the model", told, weigh / weigh.sum())
    return Reconstructed(done.state, done.before, done.after, done.after < done.before)


class _Code:
    """One matrix: a number a weight, in steps of the 8-bit grid, and its scales."""

    def __init__(self, start: QTensor, narrowest: int) -> None:
        self._start = start
        self._step = 2.0 ** (MASTER - narrowest)
        self._code = start.format.element.decode(start.unpacked()).float()
        self.scales = LearnedScales(start)
        self.offset = torch.zeros_like(self._code, requires_grad=True)

    def values(self, widths: Sequence[int]) -> list[Tensor]:
        """[N, K] as each width serves it; differentiable."""
        number = self._number()
        each = self.scales.each()
        return [straight(functools.partial(_served, bits=bits), number) * each for bits in widths]

    def harden(self) -> QTensor:
        """Codes and scales as stored."""
        with torch.no_grad():
            value = _served(self._number(), MASTER) * self.scales.each()
            return tensors.encode(value, self._start.format, self.scales.stored(), None, self._start.tensor_scale)

    def _number(self) -> Tensor:
        return self._code + self.offset * self._step


def _served(number: Tensor, bits: int) -> Tensor:
    """The slice of the nearest code, in steps of the 8-bit grid."""
    code = number.round().clamp(-(1 << (MASTER - 1)), (1 << (MASTER - 1)) - 1).to(torch.int32)
    return slice_codes(code, bits).float() * 2.0 ** (MASTER - bits)


class _Slices:
    """Codes and scales of all matrices as a learner, whose outputs are [widths, rows, choices]."""

    def __init__(self, start: Mapping[str, QTensor], forward: Forward, options: Options) -> None:
        self._widths = [bits for bits, _ in options.shares()]
        self._codes = {name: _Code(q, self._widths[0]) for name, q in start.items()}
        self._forward, self._options = forward, options

    def groups(self) -> list[dict[str, Any]]:
        return [
            {"params": [code.offset for code in self._codes.values()], "lr": self._options.model_rate},
            {"params": [code.scales.stretch for code in self._codes.values()], "lr": self._options.model_scale_rate},
        ]

    def forward(self, windows: Sequence[int]) -> Tensor:
        return self._outputs({name: code.values(self._widths) for name, code in self._codes.items()}, windows)

    def state(self) -> dict[str, QTensor]:
        return {name: code.harden() for name, code in self._codes.items()}

    def outputs(self, state: dict[str, QTensor]) -> Outputs:
        served = {name: [q.at_bits(bits).dequantize() for bits in self._widths] for name, q in state.items()}
        return functools.partial(self._outputs, served)

    def _outputs(self, served: Mapping[str, Sequence[Tensor]], windows: Sequence[int]) -> Tensor:
        return torch.stack(
            [
                self._forward({name: values[index] for name, values in served.items()}, windows)
                for index in range(len(self._widths))
            ]
        )
