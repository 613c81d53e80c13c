"""ITQ3_S (arXiv 2603.27914) in miniature: blocks of 256 rotated by a Hadamard matrix before they are rounded to 3 bits.

On synthetic weights: signal to noise of grids with and without rotation, for kinds of weights from normal to heavy-tailed.  On language
models: KL divergence of 3-bit rounding in a basis of one's own and in the rotated one, with the codes of rounding and of GPTQ.  One fp16
scale for 256 weights throughout.  The paper leaves its grid open; 8 levels of Lloyd and Max stand for it, and a plain ternary grid beside
them.  GPTQ of integers takes its scales from the largest weight as published, and those of least error beside.  On one thread: what the
rotation takes in cache, the product of one row with rotated activations beside that of 4-bit weights, and beside the paper's way, in which
blocks of weights are rotated back while they are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.quantize.itq3_s import FORMAT
from anybit.reproduce.clock import EVICT, Case, copies, medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.tensors import ScaleRule, quantize
from anybit.transforms.hadamard import Rotation, kernel, signs

TURN = Rotation(256, 0)
KINDS = ("normal", "laplace", "student", "outliers")
EIGHT = TensorFormat.parse("int8/g128")
LOADED = 64
"""Rows that are rotated back at a time."""
ROWS = 8
"""Rows that are rotated in a call to see how fast that is; they stay in cache."""


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick takes fewer blocks and stories260k alone (whose widths allow blocks of 64 and 4)."""
    figures: dict[str, Any] = {"snr": {kind: _snr(kind, 1000 if quick else 4000) for kind in KINDS}, "same": _same()}
    for kind in KINDS:
        row = figures["snr"][kind]
        row["gain"] = row["rotated"] - row["levels"]
    for name in ("anybit-tiny",) if quick else ("anybit-tiny", "stories260k"):
        subject = Subject.open(context, name, 2000 if quick else 6000, 32 if quick else 64)
        figures[name.split("-")[-1]] = _model(context, subject)
    figures["speed"] = _speed(context, 4096, 9 if quick else 31)
    return figures


def _weights(kind: str, blocks: int) -> Tensor:
    g = torch.Generator().manual_seed(5)
    normal = torch.randn(blocks, 256, generator=g)
    if kind == "laplace":
        half = torch.rand(blocks, 256, generator=g) - 0.5
        return -half.sign() * torch.log1p(-2 * half.abs().clamp(max=0.4999999))
    if kind == "student":  # three degrees of freedom
        return normal / (torch.randn(3, blocks, 256, generator=g).square().sum(0) / 3).sqrt()
    if kind == "outliers":
        places = torch.rand(blocks, 256, generator=g).argsort(1)[:, :2]
        return normal.scatter(1, places, 15 * torch.randn(blocks, 2, generator=g).sign())
    return normal


def _snr(kind: str, blocks: int) -> dict[str, float]:
    """Decibels: 3 bits from the largest weight, and with a zero point; the levels without and with rotation; ternary, rotated."""
    w = _weights(kind, blocks)
    return {
        "absmax": _decibel(w, "int3n/g256", "absmax", False),
        "zero": _decibel(w, "int3/g256+z", "absmax", False),
        "levels": _decibel(w, FORMAT, "mse", False),
        "rotated": _decibel(w, FORMAT, "mse", True),
        "ternary": _decibel(w, "ternary/g256", "mse", True),
    }


def _decibel(w: Tensor, spec: str, rule: ScaleRule, rotate: bool) -> float:
    x = TURN.forward(w) if rotate else w
    error = quantize(x, TensorFormat.parse(spec), rule).dequantize() - x  # as large as in the basis of the weights
    return 10 * math.log10(float(w.double().square().sum() / error.double().square().sum()))


def _same() -> dict[str, float]:
    """Relative differences: the error in both bases; the product with rotated activations and with weights rotated back."""
    g = torch.Generator().manual_seed(6)
    w, x = torch.randn(64, 512, generator=g), torch.randn(32, 512, generator=g)
    q = quantize(TURN.forward(w), TensorFormat.parse(FORMAT), "mse").dequantize()
    there, back = (q - TURN.forward(w)).norm(), (TURN.inverse(q) - w).norm()
    a, b = TURN.forward(x) @ q.T, x @ TURN.inverse(q).T
    return {"error": float((there - back).abs() / back), "product": float((a - b).norm() / b.norm())}


def _speed(context: Context, size: int, rounds: int) -> dict[str, float]:
    """Microseconds of one row by a matrix size x size, read from memory, and of the rotation of that row, in cache; ratios of them; and
    what rotating several rows in a call reads and writes a second (the call itself takes as long as one of them).

    Both widths with exact and with 8-bit activations, and 3 bits with 8-bit levels too (`ops.prepack`); the fastest counts.  The paper's
    way is flattered: rows already decoded, and in cache, are rotated back and multiplied.  Not a number without the native module.
    """
    module = native.load()
    if module is None:
        return dict.fromkeys(("rotation_gbs", "rotation_share", "over_four", "over_loading"), math.nan)
    g = torch.Generator().manual_seed(7)
    x, w = torch.randn(1, size, generator=g), torch.randn(size, size, generator=g)
    three, four = quantize(w, TensorFormat.parse(FORMAT)), quantize(w, TensorFormat.parse("int4/g128"))
    decoded = three.rows(0, min(LOADED, size)).dequantize()
    turn, given, out = kernel(TURN.block), x.numpy(), np.empty((1, size), np.float32)
    turned, rotated_x = signs(size, TURN.seed or 0).numpy(), torch.from_numpy(out)
    several, turned_rows = np.repeat(given, ROWS, 0), np.empty((ROWS, size), np.float32)

    def rotated() -> None:
        module.hadamard(given, turn.small, turn.order, turn.block, False, turned, out)

    def rows_rotated() -> None:
        module.hadamard(several, turn.small, turn.order, turn.block, False, turned, turned_rows)

    def ours(act: TensorFormat | None, packed: ops.Packed) -> Tensor:
        rotated()
        return ops.matmul(rotated_x, packed, act=act)

    def loading() -> None:
        for _ in range(size // len(decoded)):
            _loaded(x, decoded)

    products: dict[str, Case | Sequence[Case]] = {"loading": loading}
    for act in (None, EIGHT):
        products[f"three {act}"] = copies(partial(ops.prepack, three), partial(ours, act))
        products[f"four {act}"] = copies(partial(ops.prepack, four), partial(ops.matmul, x, act=act))
    products["three levels"] = copies(partial(ops.prepack, three, levels="int8"), partial(ours, EIGHT))
    with one_thread():
        rotations = medians({"one": rotated, "many": rows_rotated}, rounds, 0, "rotating rows", context.progress)
        seconds = medians(products, rounds, EVICT, "one row", context.progress)
    best = {name: min(value for way, value in seconds.items() if way.startswith(name)) for name in ("three", "four")}
    return {
        **{f"{name}_us": 1e6 * value for name, value in {**seconds, "rotation": rotations["one"]}.items()},
        "rotation_gbs": 8 * ROWS * size / rotations["many"] / 1e9,
        "rotation_share": rotations["one"] / best["three"],
        "over_four": best["four"] / best["three"],
        "over_loading": seconds["loading"] / best["three"],
    }


def _loaded(x: Tensor, rows: Tensor) -> Tensor:
    """x Wᵀ the paper's way, of decoded rows: rotated back, then multiplied with x as it is."""
    return x @ TURN.inverse(rows).T


def _model(context: Context, subject: Subject) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {
        "zero": {"weights": "int3/g256+z", "method": "rtn", "options": {"scale_rule": "absmax"}},
        "levels": {"weights": FORMAT, "method": "rtn"},
        "rotated": {"weights": FORMAT, "method": "rtn", "transforms": ["rotate_inputs"]},
        "published_gptq": {"weights": "int3/g256", "options": {"scale_rule": "absmax"}},
        "gptq": {"weights": "int3/g256"},
        "rotated_gptq": {"method": "itq3_s"},
        "ternary_gptq": {"weights": "ternary/g256", "transforms": ["rotate_inputs"]},
    }
    figures: dict[str, Any] = {"perplexity": subject.perplexity()}
    for done, (label, recipe) in enumerate(rows.items()):
        context.progress(f"{subject.folder.name} at 3 bits", done, len(rows))
        figures[label] = subject.tried(recipe, context.work)
    for share, other in (("published_share", "published_gptq"), ("gptq_share", "gptq")):
        figures[share] = figures["rotated_gptq"]["kl"] / figures[other]["kl"]
    return figures


EXPERIMENT = Experiment(
    number=52,
    name="itq3s",
    claim="Rotating blocks of 256 weights by a Walsh-Hadamard matrix before 3-bit rounding lowers the error of heavy-tailed weights, and "
    "the inverse rotation fits into loading.",
    source="arXiv 2603.27914",
    checks=(
        Check("the error is the same in both bases", "same.error", "<=", 1e-5),
        Check("rotated activations give the product of weights rotated back", "same.product", "<=", 1e-5),
        Check("normal weights: rotation changes nothing", "snr.normal.gain", "<=", 0.2),
        Check("Laplace weights: 1.5 dB or more", "snr.laplace.gain", ">=", 1.5),
        Check("Student's t with 3 degrees of freedom: 5 dB or more", "snr.student.gain", ">=", 5.0),
        Check("two outliers of 15 a block: 5 dB or more", "snr.outliers.gain", ">=", 5.0),
        Check("anybit-tiny: less divergence than 3 bits with zero points", "tiny.rotated.kl", "<", "tiny.zero.kl"),
        Check("anybit-tiny: less than the same levels without rotation", "tiny.rotated.kl", "<", "tiny.levels.kl"),
        Check(
            "anybit-tiny: GPTQ in the rotated basis has half the divergence of GPTQ as published",
            "tiny.published_share",
            "<=",
            0.5,
        ),
        Check("and less than GPTQ with the scales of least error", "tiny.gptq_share", "<", 1),
        Check("blocks of 256 in cache: 10 GB read and written a second or more", "speed.rotation_gbs", ">=", 10.0),
        Check("rotating a row: 3 % of its product with 4096 x 4096 at most", "speed.rotation_share", "<=", 0.03),
        Check("one row, rotated, 3 bits: 1.25 times as fast as 4 bits or more", "speed.over_four", ">=", 1.25),
        Check("3 times as fast or more as rotating weights back while loading", "speed.over_loading", ">=", 3.0),
    ),
    run=run,
    key_figures={
        "KL, rotated GPTQ": "tiny.rotated_gptq.kl",
        "GPTQ of integers, as published": "tiny.published_gptq.kl",
        "with scales of least error": "tiny.gptq.kl",
        "rounding, rotated": "tiny.rotated.kl",
        "with zero points": "tiny.zero.kl",
        "dB on Laplace weights": "snr.laplace.gain",
        "ternary grid on normal weights, dB": "snr.normal.ternary",
        "3-bit integers": "snr.normal.absmax",
        "rotating, share of a row's product": "speed.rotation_share",
        "over 4 bits": "speed.over_four",
        "over rotating weights": "speed.over_loading",
    },
    notes="KL divergence to the unquantized model in nats a token. The paper's bound holds for its grid only where that has 8 or 9 "
    "levels: a ternary one is below ordinary 3-bit integers on normal weights. Half of what GPTQ with scales of "
    "least error diverges would take 3 dB, more than nearly normal weights such as those of anybit-tiny have to give.",
)
