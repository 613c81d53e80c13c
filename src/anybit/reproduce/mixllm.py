"""MixLLM (arXiv 2412.14590): 8 bits for the tenth of output rows that matter most over the whole model, 4 bits for the others.

Scores of rows are Taylor expansions of the loss (`allocate.metrics.row_taylor`), from gradients on the calibration text; 4-bit rows are
uint4 with zero points, 8-bit rows int8, both in groups of 128, activations int8 in groups of 128. Weights are rounded to nearest (the
paper uses GPTQ on both parts), so that what is compared is the choice of rows. Choices: over the whole model, in every layer alike, at
random, and the paper's scores a byte instead of a row. Three draws of calibration text, or of random rows. At 4 bits this model loses
little, and what it loses is noise to a choice of rows; so the choices are compared with 2 bits in place of 4 as well.
Speed, one thread: the two parts as two native products (`ops.mixed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from anybit import models, ops
from anybit.allocate.metrics.row_taylor import RowTaylor, choose
from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor
from anybit.models.evaluation import perplexity
from anybit.models.interpreter import Setting
from anybit.models.interpreter import run as run_ops
from anybit.models.plan import WeightRef
from anybit.models.weights import Overlay
from anybit.ops.mixed import MixedPacked, mixed_matmul
from anybit.reproduce.clock import EVICT, Case, copies, medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import windows
from anybit.tensors import quantize
from anybit.tensors.mixed import quantize_mixed

NARROW, NARROWER, WIDE, ACT = (
    TensorFormat.parse(spec) for spec in ("uint4/g128+z", "uint2/g128+z", "int8n/g128", "int8/g128")
)
SHARE = 0.1
SEEDS = (0, 1, 2)


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores fewer tokens, fewer rows one at a time, and times fewer rounds."""
    model = models.load("anybit-tiny")
    names = [n for n in model.plan.weight_names() if ".layers." in n and len(model.weights.shape(n)) == 2]
    return {
        "conversion": _conversion(),
        "one_at_a_time": _one_at_a_time(context, model, names, 60 if quick else 200),
        "w4": _choices(context, model, names, NARROW, 1_500 if quick else 6_000, 8 if quick else 24),
        "w2": _choices(context, model, names, NARROWER, 1_500 if quick else 4_000, 8 if quick else 24),
        "speed": _speed(context, 7 if quick else 41),
    }


def _conversion() -> int:
    """Integers up to 2^22 that the addition of 0x4B400000, a change of type and a subtraction do not turn into the same float."""
    bound = 1 << 22
    wrong = 0
    for start in range(-bound, bound + 1, 1 << 20):
        integers = np.arange(start, min(start + (1 << 20), bound + 1), dtype=np.int32)
        found = (integers + np.int32(0x4B400000)).view(np.float32) - np.float32(12582912)
        wrong += int((found != integers.astype(np.float32)).sum())
    return wrong


def _windows(model: Model, file: str, count: int, seed: int) -> list[list[int]]:
    """Windows of 256 tokens of a text of the model's, drawn without repetition."""
    all_of_it = windows(model, file)
    chosen = np.random.default_rng(seed).permutation(len(all_of_it))[:count]
    return [list(all_of_it[i]) for i in sorted(chosen.tolist())]


def _dense(model: Model, name: str) -> Tensor:
    weight = model.weights.get(name)
    return weight.float() if isinstance(weight, Tensor) else weight.dequantize()


def _scores(
    model: Model, names: Sequence[str], windows: Sequence[Sequence[int]], fmt: TensorFormat
) -> dict[str, Tensor]:
    """Score of every row for rounding to `fmt`, from the mean loss of each window."""
    metrics = {}
    for name in names:
        weight = _dense(model, name)
        metrics[name] = RowTaylor(quantize(weight, fmt).dequantize() - weight, name=name)
    for window in windows:
        inputs: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}

        def keep(ref: WeightRef, x: Tensor, into: dict[str, Tensor] = inputs) -> None:
            into[ref.name] = x.detach()

        def watch(ref: WeightRef, y: Tensor, into: dict[str, Tensor] = outputs) -> None:
            if not y.requires_grad:
                y.requires_grad_()
            y.retain_grad()
            into[ref.name] = y

        ids = torch.tensor(window)
        buffers = run_ops(
            model.plan, model.weights, model.plan.ops, {"ids": ids[:-1]}, Setting(on_linear=keep, on_output=watch)
        )
        functional.cross_entropy(buffers[model.plan.ops[-1].output].float(), ids[1:]).backward()
        for name, metric in metrics.items():
            gradient = outputs[name].grad
            assert gradient is not None, "every layer's output reaches the loss"
            metric.add(inputs[name], gradient)
    return {name: metric.score for name, metric in metrics.items()}


def _losses(model: Model, weights: Any, windows: Sequence[Sequence[int]]) -> np.ndarray:
    """Mean loss of each window."""
    found = []
    with torch.no_grad():
        for window in windows:
            ids = torch.tensor(window)
            buffers = run_ops(model.plan, weights, model.plan.ops, {"ids": ids[:-1]})
            found.append(float(functional.cross_entropy(buffers[model.plan.ops[-1].output].double(), ids[1:])))
    return np.array(found)


def _one_at_a_time(context: Context, model: Model, names: Sequence[str], count: int) -> dict[str, float]:
    """Rank correlation of scores with the change of the loss when one row is rounded, over rows of all layers, spread over the scores."""
    windows = [window[:128] for window in _windows(model, "calibration.txt", 2, 9)]
    scores = _scores(model, names, windows, NARROW)
    rows = [(name, row) for name in names for row in range(len(scores[name]))]
    rows.sort(key=lambda entry: float(scores[entry[0]][entry[1]]))
    picked = [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int).tolist()]
    base = _losses(model, model.weights, windows)
    real, told = [], []
    for number, (name, row) in enumerate(picked):
        context.progress("one row at a time", number, count)
        weight = _dense(model, name).clone()
        weight[row] = quantize(weight[row : row + 1], NARROW).dequantize()[0]
        real.append(np.abs(_losses(model, Overlay(model.weights, {name: weight}), windows) - base).sum())
        told.append(float(scores[name][row]))
    ranks = np.stack([np.argsort(np.argsort(values)) for values in (real, told)])
    correlation = np.asarray(np.corrcoef(ranks))
    return {"spearman": float(correlation[0, 1]), "rows": count}


def _rounded(site: str, x: Tensor, w: Tensor) -> Tensor:
    """`interpreter.Multiply`: 8-bit activations into the layers of the blocks, other products exact."""
    return (quantize(x, ACT).dequantize() if ".layers." in site else x) @ w.T


def _choices(
    context: Context, model: Model, names: Sequence[str], fmt: TensorFormat, tokens: int, sequences: int
) -> dict[str, Any]:
    """log perplexity above that of all rows at 8 bits, over that of all as `fmt`, by choice of rows; means and differences over draws."""
    windows = _windows(model, "heldout.txt", max(1, tokens // 255), 5)
    dense = {name: _dense(model, name) for name in names}
    widths = {name: weight.shape[1] for name, weight in dense.items()}
    narrow = {name: quantize(weight, fmt).dequantize() for name, weight in dense.items()}
    wide = {name: quantize(weight, WIDE).dequantize() for name, weight in dense.items()}

    def score(rows: Mapping[str, Tensor]) -> float:
        mixed = {name: torch.where(rows[name][:, None], wide[name], narrow[name]) for name in names}
        executor = TorchExecutor(model.plan, Overlay(model.weights, mixed), multiply=_rounded)
        return float(np.log(perplexity(executor, windows).perplexity))

    least, most = (score({n: torch.full((len(w),), flag) for n, w in dense.items()}) for flag in (True, False))
    left: dict[str, list[float]] = {"whole": [], "layer": [], "random": [], "byte": []}
    for seed in SEEDS:
        context.progress("choices of rows", seed, len(SEEDS))
        scores = _scores(model, names, _windows(model, "calibration.txt", sequences, seed), fmt)
        generator = torch.Generator().manual_seed(seed)
        found = {
            "whole": choose(scores, widths, SHARE),
            "layer": {n: choose({n: scores[n]}, widths, SHARE)[n] for n in names},
            "random": choose({n: torch.rand(len(scores[n]), generator=generator) for n in names}, widths, SHARE),
            "byte": choose(scores, widths, SHARE, "byte"),
        }
        for how, rows in found.items():
            left[how].append((score(rows) - least) / (most - least))
    differences = {how: np.array(left[how]) - np.array(left["whole"]) for how in ("layer", "random")}
    return {
        "perplexity_wide": float(np.exp(least)),
        "perplexity_narrow": float(np.exp(most)),
        "rise": most - least,
        "left": {how: float(np.mean(values)) for how, values in left.items()},
        "closed": 1 - float(np.mean(left["whole"])),
        # Standard deviations by which the whole model's choice is ahead, over draws.
        "ahead": {how: float(d.mean() / max(d.std(ddof=1), 1e-9)) for how, d in differences.items()},
    }


def _speed(context: Context, rounds: int) -> dict[str, Any]:
    """Processor time with 4096 x 4096 weights read from memory: a tenth of the rows at 8 bits, all at 4, float32."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4096, 4096, generator=generator)
    choice = (torch.rand(4096, generator=generator) >= SHARE).long()
    parts, narrow = quantize_mixed(weight, [WIDE, NARROW], choice, 0), quantize(weight, NARROW)
    cases: dict[str, list[Case]] = {}
    for m in (1, 16):
        x = torch.randn(m, 4096, generator=generator)
        cases[f"mixed {m}"] = copies(partial(MixedPacked.of, parts), partial(mixed_matmul, x, act=ACT))
        cases[f"w4 {m}"] = copies(partial(ops.prepack, narrow), partial(ops.matmul, x, act=ACT))
        cases[f"exact {m}"] = copies(partial(ops.prepack, narrow), partial(ops.matmul, x))
        cases[f"fp32 {m}"] = copies(weight.clone, partial(functional.linear, x), 2)
    with one_thread():
        seconds = medians(cases, rounds, EVICT, "products", context.progress)
    return {
        "us": {name.replace(" ", "_"): 1e6 * value for name, value in seconds.items()},
        "mixed_over_w4_of_1": seconds["mixed 1"] / seconds["w4 1"],
        "mixed_over_w4_of_16": seconds["mixed 16"] / seconds["w4 16"],
        "over_fp32_of_1": seconds["fp32 1"] / seconds["mixed 1"],
        "over_fp32_of_16": seconds["fp32 16"] / seconds["mixed 16"],
        "over_exact_of_16": seconds["exact 16"] / seconds["w4 16"],
    }


EXPERIMENT = Experiment(
    number=20,
    name="mixllm",
    claim="Giving 8 bits to the tenth of output rows ranked highest over the whole model, and 4 to the rest, closes most of the gap to 8 "
    "bits without slowing the product.",
    source="arXiv 2412.14590",
    checks=(
        Check("integers up to 2^22 turned into other floats by the trick of biases", "conversion", "==", 0),
        Check("scores against rounding one row at a time: rank correlation", "one_at_a_time.spearman", ">=", 0.7),
        Check("4 bits: a tenth of the rows at 8 bits closes half of the gap (anybit-tiny)", "w4.closed", ">=", 0.5),
        Check("2 bits: a tenth of the rows at 8 bits closes half of the gap", "w2.closed", ">=", 0.5),
        Check(
            "2 bits: rows over the whole model beat the same share of every layer by 2 sigma", "w2.ahead.layer", ">=", 2
        ),
        Check("2 bits: and random rows by 2 sigma", "w2.ahead.random", ">=", 2),
        Check("M=1: at most 1.12 times the time of 4 bits alone", "speed.mixed_over_w4_of_1", "<=", 1.12),
        Check("M=16: the same", "speed.mixed_over_w4_of_16", "<=", 1.12),
        Check("M=1: twice as fast as float32", "speed.over_fp32_of_1", ">=", 2),
        Check("M=16: 1.5 times as fast as float32", "speed.over_fp32_of_16", ">=", 1.5),
        Check("M=16: integers 1.3 times as fast as unpacking to float32", "speed.over_exact_of_16", ">=", 1.3),
    ),
    run=run,
    key_figures={
        "gap closed, 4 bits": "w4.closed",
        "2 bits": "w2.closed",
        "2 bits, left by the same share of every layer": "w2.left.layer",
        "by random rows": "w2.left.random",
        "by scores a byte": "w2.left.byte",
        "rank correlation": "one_at_a_time.spearman",
        "W4.4 over W4, M=1": "speed.mixed_over_w4_of_1",
    },
    notes="Rounding to nearest on both parts instead of GPTQ. Gaps are of log perplexity. One thread, processor time.",
)
