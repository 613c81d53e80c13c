"""ARCQuant (arXiv 2601.07475) in miniature: weights and activations of a language model with outlier channels in NVFP4.

`lm-outliers` is anybit-tiny with 2 % of the channels between linear steps made 32 times larger, its function unchanged.  Weights are
rounded to the nearest NVFP4 values throughout, so that rows differ in their activations alone: NVFP4, NVFP4 behind a rotation of the
model, MXFP8, and NVFP4 with residual channels: of an eighth in their places, of an eighth with the channels sorted (as in the paper, here
where the model allows it for nothing), and of all; the second also with weights by GPTQ.  On one thread: what a product takes with an
eighth of the channels twice, in one matrix and in two, beside the eighth that it should take more.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.ops import Packed, matmul, prepack
from anybit.reproduce.clock import EVICT, copies, medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.tensors import quantize
from anybit.transforms.residual import Options, residual_columns

FOUR = TensorFormat.parse("nvfp4")
NEAREST: dict[str, Any] = {"weights": "nvfp4", "method": "rtn"}
SORTED: dict[str, Any] = {"name": "permute", "options": {"order": "sorted"}}
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "four": (NEAREST, "nvfp4"),
    "rotated": ({**NEAREST, "transforms": ["hadamard"]}, "nvfp4"),
    "eight": (NEAREST, "mxfp8"),
    "in_place": ({**NEAREST, "transforms": ["residual"]}, "nvfp4"),
    "residual": ({**NEAREST, "transforms": [SORTED, "residual"]}, "nvfp4"),
    "all": ({**NEAREST, "transforms": [{"name": "residual", "options": {"share": 1e-9, "most": 1.0}}]}, "nvfp4"),
    "gptq": ({"method": "arcquant"}, "nvfp4"),
}


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores fewer tokens and calibrates on fewer."""
    figures: dict[str, Any] = {"linear": _linear()}
    subject = Subject.open(context, "lm-outliers", 1000 if quick else 6000, 8 if quick else 32)
    figures["perplexity"] = subject.perplexity()
    for done, (key, (recipe, act)) in enumerate(ROWS.items()):
        context.progress("lm-outliers in NVFP4", done, len(ROWS))
        figures[key] = subject.tried(recipe, context.work, act)
    for key in ("residual", "eight"):
        figures[key]["share"] = figures[key]["kl"] / figures["four"]["kl"]
    times = {f"rows{rows}": _times(context, rows, 4096, 9 if quick else 31) for rows in (1, 64)}
    off = {way: max(abs(at[way] / at["predicted"] - 1) for at in times.values()) for way in ("one", "two")}
    return {**figures, "times": {**times, "off": off}}


class Twice:
    """A product of x [rows, size] with an NVFP4 weight, an eighth of whose channels are there twice."""

    def __init__(self, rows: int, size: int) -> None:
        g = torch.Generator().manual_seed(rows)
        x, w = torch.randn(rows, size, generator=g), torch.randn(size, size, generator=g)
        columns = torch.arange(0, size, 128)[:, None] + torch.arange(16)  # a block in eight
        self.columns = columns.reshape(-1)
        self.x, self.left = x, x[:, self.columns] / 16
        self.both = torch.cat([x, self.left], 1)
        self.plain = quantize(w, FOUR)
        self.rest = quantize(w[:, self.columns], FOUR)
        self.whole = quantize(torch.cat([w, w[:, self.columns]], 1), FOUR)

    def parts(self) -> tuple[Packed, Packed]:
        """A copy of the weight and of its channels that are there twice, for `two`."""
        return prepack(self.plain), prepack(self.rest)

    def one(self, whole: Packed) -> Tensor:
        """In one matrix of more columns, as published."""
        return matmul(self.both, whole)

    def two(self, parts: tuple[Packed, Packed]) -> Tensor:
        """In a matrix of its own, which is added."""
        return matmul(self.x, parts[0]).add_(matmul(self.left, parts[1]))


def _times(context: Context, rows: int, size: int, rounds: int) -> dict[str, float]:
    """How many times as long as the plain product, weights read from memory; predicted: by the number of channels."""
    twice = Twice(rows, size)
    cases = {
        "plain": copies(partial(prepack, twice.plain), partial(matmul, twice.x)),
        "one": copies(partial(prepack, twice.whole), twice.one),
        "two": copies(twice.parts, twice.two),
    }
    with one_thread():
        seconds = medians(cases, rounds, EVICT, f"{rows} rows", context.progress)
    return {
        "us": 1e6 * seconds["plain"],
        "predicted": 1 + len(twice.columns) / size,
        **{way: seconds[way] / seconds["plain"] for way in ("one", "two")},
    }


def _linear() -> dict[str, float]:
    """Relative output errors of one layer with 24 outlier channels, weights exact; and the share of channels with a residual."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(512, 1024, generator=g), torch.randn(512, 1024, generator=g)
    x[:, torch.randperm(1024, generator=g)[:24]] *= 10 + 40 * torch.rand(24, generator=g)
    exact = x @ w.T
    once = quantize(x, FOUR).dequantize()
    columns = residual_columns(x.abs().amax(0), Options(most=1.0))
    left = quantize((x - once)[:, columns], FOUR).dequantize()

    def error(y: torch.Tensor) -> float:
        return float((y - exact).norm() / exact.norm())

    return {
        "four": error(once @ w.T),
        "eight": error(quantize(x, TensorFormat.parse("mxfp8")).dequantize() @ w.T),
        "residual": error(once @ w.T + left @ w[:, columns].T),
        "channels": len(columns) / 1024,
    }


EXPERIMENT = Experiment(
    number=38,
    name="arcquant",
    claim="Appending the quantized residuals of the worst channels as extra channels makes pure NVFP4 products nearly as accurate as 4-bit "
    "weights with 8-bit activations.",
    source="arXiv 2601.07475, ACL 2026",
    checks=(
        Check(
            "one layer: residual channels err less than 4-bit activations alone", "linear.residual", "<", "linear.four"
        ),
        Check("one layer: and than 8-bit activations", "linear.residual", "<", "linear.eight"),
        Check("the model: half the divergence of 4-bit activations at most", "residual.share", "<=", 0.5),
        Check("the model: no more than 8-bit activations", "residual.kl", "<=", "eight.kl"),
        Check("the model: less than 4-bit activations behind a rotation", "residual.kl", "<", "rotated.kl"),
        Check("sorted channels need fewer residuals: less than in their places", "residual.kl", "<", "in_place.kl"),
        Check("weights by GPTQ lower it further", "gptq.kl", "<", "residual.kl"),
        Check(
            "1 and 64 rows: residual channels take what they are of the width, within 20 %", "times.off.one", "<=", 0.2
        ),
    ),
    run=run,
    key_figures={
        "KL, residual channels": "residual.kl",
        "in their places": "in_place.kl",
        "of all channels": "all.kl",
        "4-bit activations": "four.kl",
        "rotated": "rotated.kl",
        "8-bit activations": "eight.kl",
        "residual channels, GPTQ": "gptq.kl",
        "time off the prediction": "times.off.one",
    },
    notes="Residuals are taken for whole blocks of 16 channels, an eighth of the channels at most. KL divergence to the unquantized model "
    "in nats a token. Emulated: no processor here multiplies NVFP4.",
)
