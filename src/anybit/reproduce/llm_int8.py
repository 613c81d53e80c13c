"""LLM.int8() (NeurIPS 2022) in miniature: 8-bit weights and activations of a language model with outlier channels, and of one without.

Small models have no outlier channels of their own: `lm-outliers` is anybit-tiny with 2 % of the channels between linear steps made 32 times
larger, its function unchanged.  Activations have one scale a tensor or one a token ("row"); LLM.int8() takes the outlier channels, found
once on calibration text, out of the integer products and multiplies them with 16-bit weights.  SmoothQuant stands beside it.  On one
thread: a product of 2048 x 2048 with 16 outlier channels, fixed or found in every batch, beside the plain 8-bit one and torch in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.ops import keep_columns, matmul, prepack
from anybit.quantize import llm_int8
from anybit.reproduce.clock import medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.transforms.split import Options, outlier_columns

ROW, STATIC = "int8/row", "int8/static"
EIGHT = TensorFormat.parse(ROW)
OUTLIERS, LARGER, THRESHOLD = 16, 50.0, 6.0
"""Of the timed product: outlier channels, how much larger they are, and the magnitude from which a batch finds them."""
PLAIN: dict[str, Any] = {"weights": ROW, "method": "rtn", "options": {"scale_rule": "absmax"}}
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "tensor": (PLAIN, "int8/tensor"),
    "row": (PLAIN, ROW),
    "llm_int8": ({"method": "llm_int8"}, ROW),
    "smoothquant": ({"method": "smoothquant"}, ROW),
    "smooth_everywhere": (
        {"method": "smoothquant", "transforms": [{"name": "smooth", "options": {"values": True, "down": True}}]},
        ROW,
    ),
}


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores fewer tokens and calibrates on fewer."""
    figures: dict[str, Any] = {"product": _product()}
    for label, name in (("outliers", "lm-outliers"), ("plain", "anybit-tiny")):
        subject = Subject.open(context, name, 1500 if quick else 6000, 8 if quick else 32)
        base = subject.perplexity()
        figures[label] = {"perplexity": base}
        rows = {key: row for key, row in ROWS.items() if label == "outliers" or key in ("tensor", "row", "llm_int8")}
        for done, (key, (recipe, act)) in enumerate(rows.items()):
            context.progress(f"{name} with 8-bit activations", done, len(rows))
            found = subject.tried(recipe, context.work, act)
            figures[label][key] = {**found, "rise": found["perplexity"] / base - 1}
        if label == "outliers":
            ways = ("tensor", "smoothquant", "smooth_everywhere")
            context.progress(f"{name} with scales found beforehand", 0, 1)
            figures["fixed"] = {
                key: subject.tried({**ROWS[key][0], "activations": STATIC}, context.work, STATIC) for key in ways
            }
    figures["tensor_to_ours"] = figures["outliers"]["tensor"]["kl"] / figures["outliers"]["llm_int8"]["kl"]
    figures["row_to_ours"] = figures["outliers"]["row"]["kl"] / figures["outliers"]["llm_int8"]["kl"]
    speeds = {f"rows{rows}": _speed(context, rows, 2048, 15 if quick else 31) for rows in (32, 128)}
    worst = {"over_torch": min, "cost": max, "over_dynamic": min}
    return {
        **figures,
        "speed": {**speeds, **{key: pick(at[key] for at in speeds.values()) for key, pick in worst.items()}},
    }


class Timed:
    """A product with outlier channels: x [rows, size] and a weight [size, size] as each way of multiplying keeps it."""

    def __init__(self, rows: int, size: int) -> None:
        g = torch.Generator().manual_seed(rows)
        x, w = torch.randn(rows, size, generator=g).clamp(-3, 3), torch.randn(size, size, generator=g)
        self.columns = torch.randperm(size, generator=g)[:OUTLIERS].sort().values
        x[:, self.columns] *= LARGER
        x[0, self.columns] = LARGER  # every batch finds all of them
        self.x, self.w = x, w
        quantized = llm_int8.quantize(w, EIGHT).qtensor
        self.plain = prepack(quantized)
        self.codes, self.scale = (
            quantized.format.element.decode(quantized.unpacked()).to(torch.int8),
            quantized.scales(),
        )
        rest = prepack(llm_int8.quantize(w.index_fill(1, self.columns, 0.0), EIGHT).qtensor)
        self.kept = keep_columns(rest, self.columns, w[:, self.columns].bfloat16())

    def fixed(self) -> Tensor:
        """Columns known beforehand, their weights in 16 bits."""
        return matmul(self.x, self.kept, act=EIGHT)

    def dynamic(self) -> Tensor:
        """Columns found in the batch, their weights decoded from the 8-bit ones, as the paper's library does."""
        columns = (self.x.abs() >= THRESHOLD).any(0).nonzero()[:, 0]
        inner = matmul(self.x.index_fill(1, columns, 0.0), self.plain, act=EIGHT)
        return inner.addmm_(
            self.x.index_select(1, columns), (self.codes.index_select(1, columns).float() * self.scale).T
        )


def _speed(context: Context, rows: int, size: int, rounds: int) -> dict[str, Any]:
    """Microseconds in cache, and: torch over plain 8 bits, fixed outliers over these, outliers found in the batch over fixed ones."""
    timed = Timed(rows, size)
    cases: dict[str, Callable[[], object]] = {
        "torch": partial(torch.nn.functional.linear, timed.x, timed.w),
        "int8": partial(matmul, timed.x, timed.plain, act=EIGHT),
        "fixed": timed.fixed,
        "dynamic": timed.dynamic,
    }
    with one_thread():
        seconds = medians(cases, rounds, 0, f"{rows} rows", context.progress)
    return {
        "us": {name: 1e6 * value for name, value in seconds.items()},
        "over_torch": seconds["torch"] / seconds["int8"],
        "cost": seconds["fixed"] / seconds["int8"] - 1,
        "over_dynamic": seconds["dynamic"] / seconds["fixed"],
    }


def _product() -> dict[str, float]:
    """Relative difference of a decomposed product from the published formulas in float64."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(64, 512, generator=g), torch.randn(128, 512, generator=g)
    x[:, [5, 77, 300]] *= 50
    columns = outlier_columns(x.abs().amax(0), Options())
    rest, kept = x.clone(), w.clone()
    rest[:, columns], kept[:, columns] = 0.0, 0.0
    fmt = TensorFormat.parse(ROW)
    packed = keep_columns(prepack(llm_int8.quantize(kept, fmt).qtensor), columns, w[:, columns])
    ours = matmul(x, packed, act=fmt)
    a, b = rest.double(), kept.double()
    scales = a.abs().amax(1, keepdim=True), b.abs().amax(1, keepdim=True)
    integers = torch.round(a * 127 / scales[0]) @ torch.round(b * 127 / scales[1]).T
    wanted = integers * scales[0] * scales[1].T / 127**2 + x[:, columns].double() @ w[:, columns].double().T
    return {"difference": float((ours - wanted).norm() / wanted.norm()), "columns": len(columns)}


EXPERIMENT = Experiment(
    number=7,
    name="llm_int8",
    claim="Row-wise int8 with the few outlier feature columns kept in 16 bits matches 16-bit quality where plain int8 breaks, without "
    "calibration.",
    source="NeurIPS 2022",
    checks=(
        Check("the decomposed product is that of the published formulas", "product.difference", "<=", 1e-3),
        Check("with outliers: perplexity rises by half a per cent at most", "outliers.llm_int8.rise", "<=", 0.005),
        Check("with outliers: one scale a tensor diverges 10 times as much or more", "tensor_to_ours", ">=", 10.0),
        Check("with outliers: one scale a token diverges twice as much or more", "row_to_ours", ">=", 2.0),
        Check(
            "with outliers, a scale found beforehand: less with SmoothQuant than without",
            "fixed.smoothquant.kl",
            "<",
            "fixed.tensor.kl",
        ),
        Check("without outliers: one scale a token costs 1 % at most", "plain.row.rise", "<=", 0.01),
        Check("without outliers: so does the decomposition", "plain.llm_int8.rise", "<=", 0.01),
        Check("32 and 128 rows: 8 bits 1.8 times as fast as torch in float32 or more", "speed.over_torch", ">=", 1.8),
        Check("outlier channels, less than 1 %, cost 15 % of the time at most", "speed.cost", "<=", 0.15),
        Check(
            "beyond the paper: fixed ones 1.5 times as fast as found in every batch or more",
            "speed.over_dynamic",
            ">=",
            1.5,
        ),
    ),
    run=run,
    key_figures={
        "perplexity rise with outliers": "outliers.llm_int8.rise",
        "one scale a token": "outliers.row.rise",
        "one scale a tensor": "outliers.tensor.rise",
        "KL": "outliers.llm_int8.kl",
        "of one scale a token": "outliers.row.kl",
        "of SmoothQuant": "outliers.smoothquant.kl",
        "of SmoothQuant, scales found beforehand": "fixed.smoothquant.kl",
        "of rounding, scales found beforehand": "fixed.tensor.kl",
        "over torch float32": "speed.over_torch",
        "cost of outlier channels": "speed.cost",
        "fixed over found": "speed.over_dynamic",
    },
    notes="The set of outlier channels is fixed on calibration text, where the paper finds it in every batch. KL divergence to the "
    "unquantized model in nats a token.",
)
