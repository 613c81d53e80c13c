"""LLM.int8() (NeurIPS 2022) in miniature: 8-bit weights and activations of a language model with outlier channels, and of one without.

Small models have no outlier channels of their own: `lm-outliers` is anybit-tiny with 2 % of the channels between linear steps made 32 times
larger, its function unchanged.  Activations have one scale a tensor or one a token ("row"); LLM.int8() takes the outlier channels, found
once on calibration text, out of the integer products and multiplies them with 16-bit weights.  SmoothQuant stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from anybit.formats import TensorFormat
from anybit.ops import matmul
from anybit.quantize import llm_int8
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.transforms.split import Options, outlier_columns

ROW = "int8/row"
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
    figures["tensor_to_ours"] = figures["outliers"]["tensor"]["kl"] / figures["outliers"]["llm_int8"]["kl"]
    figures["row_to_ours"] = figures["outliers"]["row"]["kl"] / figures["outliers"]["llm_int8"]["kl"]
    return figures


def _product() -> dict[str, float]:
    """Relative difference of a decomposed product from the published formulas in float64."""
    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(64, 512, generator=g), torch.randn(128, 512, generator=g)
    x[:, [5, 77, 300]] *= 50
    columns = outlier_columns(x.abs().amax(0), Options())
    rest, kept = x.clone(), w.clone()
    rest[:, columns], kept[:, columns] = 0.0, 0.0
    fmt = TensorFormat.parse(ROW)
    ours = matmul(rest, llm_int8.quantize(kept, fmt).qtensor, act=fmt) + x[:, columns] @ w[:, columns].T
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
        Check("without outliers: one scale a token costs 1 % at most", "plain.row.rise", "<=", 0.01),
        Check("without outliers: so does the decomposition", "plain.llm_int8.rise", "<=", 0.01),
    ),
    run=run,
    key_figures={
        "perplexity rise with outliers": "outliers.llm_int8.rise",
        "one scale a token": "outliers.row.rise",
        "one scale a tensor": "outliers.tensor.rise",
        "KL": "outliers.llm_int8.kl",
        "of one scale a token": "outliers.row.kl",
        "of SmoothQuant": "outliers.smoothquant.kl",
    },
    notes="The set of outlier channels is fixed on calibration text, where the paper finds it in every batch. KL divergence to the "
    "unquantized model in nats a token.",
)
