"""MARLIN (arXiv 2408.11743), its side that a CPU can show: 4-bit weights at the speed of memory for more than one row.

Words: the packing derived from the fragment of an instruction, and the unpacking of two nibbles by one logical operation and one fused
multiply-add in fp16, on all codes.  Numbers: products with exact and with 8-bit activations against float64.  Work: stripes.
Speed, one thread, 4096 x 4096 in groups of 128 read from memory: each number of rows beside the limit of its bytes and operations, beside
torch's float32 product, and beside unpacking to float32 and multiplying then.  Quality: round to nearest, GPTQ, and GPTQ with scales
that are clipped to the least squared error, weighted by the Hessian's diagonal (the paper weighs by the whole inverse factor).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops.native import load
from anybit.ops.partition import loads, output_tiles, stripes
from anybit.reproduce.ascend_w4a16 import Halves
from anybit.reproduce.clock import EVICT, Case, medians, one_thread, reading
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.reproduce.tilus import marlin_mismatches
from anybit.tensors import quantize

ROWS = (1, 2, 4, 8, 16, 32)
FORMAT = "int4/g128"
METHODS = {"rtn": ("rtn", "absmax"), "gptq": ("gptq", "absmax"), "gptq_clip": ("gptq", "mse")}


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick times fewer rounds and scores fewer tokens."""
    return {
        "words": {"packed": marlin_mismatches(), "unpacked": _unpacked()},
        "error": _errors(quick),
        "stripes": _stripes(),
        "speed": _speed(context, 5 if quick else 15),
        "tiny": _quantized(context, 2_000 if quick else 8_000, 16 if quick else 64),
    }


def _unpacked() -> int:
    """Values q - 8 that the fp16 tricks get wrong, over all pairs of nibbles in all places of a word; must be 0.

    0x6400 is 1024 with a last place of 1: or-ing a nibble into it adds the nibble. One place higher it adds 16 times as much, which a
    fused multiply-add by 1/16 takes back; TurboMind ors into 0x5400 = 64, whose last place is 1/16, and needs no multiplication.
    """
    wrong = 0
    low, high = np.meshgrid(np.arange(16, dtype=np.uint32), np.arange(16, dtype=np.uint32), indexing="ij")
    for pair in range(4):
        word = (low << np.uint32(4 * pair)) | (high << np.uint32(4 * pair + 16))
        moved = word >> np.uint32(8 * (pair // 2))
        wanted = np.stack([low, high], -1).astype(np.float64) - 8
        if pair % 2 == 0:
            halves = _halves((moved & 0x000F000F) | 0x64006400)
            wrong += int((halves - np.float16(1032) != wanted).sum())
            continue
        halves = _halves((moved & 0x00F000F0) | 0x64006400)
        fused = (halves.astype(np.float64) / 16 - 72).astype(np.float16)
        other = _halves((moved & 0x00F000F0) | 0x54005400) - np.float16(72)
        wrong += int((fused != wanted).sum()) + int((other != wanted).sum())
    return wrong


def _halves(words: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(words.astype("<u4")).view("<f2").reshape(*words.shape, 2)


def _errors(quick: bool) -> dict[str, float]:
    """Mean error over mean magnitude, the worst over many sizes: the native product of exact activations, and of 8-bit ones."""
    generator = torch.Generator().manual_seed(0)
    found = {"exact": 0.0, "int8": 0.0}
    for m in (
        (1, 2, 3, 4, 8, 12, 16, 24, 32, 48, 64) if quick else (1, 2, 3, 4, 8, 12, 16, 24, 32, 48, 64, 118, 128, 152)
    ):
        for n, k in ((64, 64), (192, 320), (256, 1088)):
            x = torch.randn(m, k, generator=generator)
            q = quantize(torch.randn(n, k, generator=generator), TensorFormat.parse(FORMAT))
            true = x.double() @ q.dequantize().double().T
            packed = ops.prepack(q)
            for name, act in (("exact", None), ("int8", TensorFormat.parse("int8/g128"))):
                error = (ops.matmul(x, packed, act=act).double() - true).abs().mean() / true.abs().mean()
                found[name] = max(found[name], float(error))
    return found


def _stripes() -> dict[str, float]:
    """Steps of the busiest of 108 workers over the mean, for layers of published models: stripes and whole columns; handed on at most."""
    worst = {"stripes": 0.0, "columns": 0.0, "handed_on": 0.0, "lost": 0.0}
    for n, k in ((4096, 4096), (12288, 4096), (22016, 4096), (4096, 11008), (8192, 28672), (5120, 13824)):
        tiles, steps, workers = n // 256, k // 64, 108
        parts = stripes(tiles, steps, workers, group=2)
        mean = tiles * steps / workers
        worst["stripes"] = max(worst["stripes"], max(loads(parts, workers)) / mean)
        worst["columns"] = max(worst["columns"], max(loads(output_tiles(tiles, steps, workers), workers)) / mean)
        for worker in range(workers):
            worst["handed_on"] = max(
                worst["handed_on"], sum(p.worker == worker and p.turn + 1 < p.turns for p in parts)
            )
        covered = sorted((p.tile, step) for p in parts for step in range(p.begin, p.end))
        worst["lost"] += covered != [(tile, step) for tile in range(tiles) for step in range(steps)]
    return worst


def _speed(context: Context, rounds: int) -> dict[str, Any]:
    """Processor time by number of rows, as shares of the limit and ratios over float32."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4096, 4096, generator=generator)
    q = quantize(weight, TensorFormat.parse(FORMAT))
    stored, act = ops.prepack(q).nbytes, TensorFormat.parse("int8/g128")
    halves, buffer = Halves.of(weight), torch.zeros(weight.numel())
    module = load()
    inputs = {m: torch.randn(m, 4096, generator=generator) for m in ROWS}
    packed, dense = [ops.prepack(q) for _ in range(5)], [weight.clone() for _ in range(2)]
    cases: dict[str, list[Case]] = {"read": reading(stored)}
    for m, x in inputs.items():
        cases[f"fp32 {m}"] = [partial(torch.nn.functional.linear, x, w) for w in dense]
        cases[f"exact {m}"] = [partial(ops.matmul, x, w) for w in packed]
        cases[f"int8 {m}"] = [partial(ops.matmul, x, w, act=act) for w in packed]
    for m in (1, 4, 16):
        cases[f"widened {m}"] = [partial(halves.product, inputs[m], buffer)]
    with one_thread():
        seconds = medians(cases, rounds, EVICT, "products", context.progress)
        peak = float(module.probe_peak("fp32", 1)) if module else math.nan
        int8_peak = float(module.probe_int8_peak(1)) if module else math.nan
    found: dict[str, Any] = {"bandwidth": stored / seconds["read"], "fp32_peak": peak, "int8_peak": int8_peak}
    for m in ROWS:  # below, max keeps a peak that is not known (NaN) because it comes first
        by_bytes, operations = seconds["read"], 2 * m * 4096 * 4096
        found[f"m{m}"] = {
            "us": {kind: 1e6 * seconds[f"{kind} {m}"] for kind in ("fp32", "exact", "int8")},
            "exact_share": max(operations / peak, by_bytes) / seconds[f"exact {m}"],
            "int8_share": max(operations / int8_peak, by_bytes) / seconds[f"int8 {m}"],
            "exact_gain": seconds[f"fp32 {m}"] / seconds[f"exact {m}"],
            "int8_gain": seconds[f"fp32 {m}"] / seconds[f"int8 {m}"],
        }
    return found | {
        "widened_gain_of_4": seconds["fp32 4"] / seconds["widened 4"],
        "exact_least_share": min(found[f"m{m}"]["exact_share"] for m in ROWS),
        "int8_least_share": min(found[f"m{m}"]["int8_share"] for m in ROWS),
        "exact_least_gain": min(found[f"m{m}"]["exact_gain"] for m in ROWS if m <= 16),
        "int8_least_gain": min(found[f"m{m}"]["int8_gain"] for m in ROWS if m <= 16),
    }


def _quantized(context: Context, tokens: int, samples: int) -> dict[str, Any]:
    """Of anybit-tiny on held-out text, with the matrices of its blocks at int4/g128 by three methods: rise of perplexity, and KL divergence
    to the original, which judges them: perplexity of so little text falls by chance as well as it rises."""
    subject = Subject.open(context, "anybit-tiny", tokens, samples)
    base = subject.perplexity()
    found: dict[str, Any] = {"original": base, "kl": {}}
    for number, (label, (method, rule)) in enumerate(METHODS.items()):
        context.progress(f"quantizing: {label}", number, len(METHODS))
        recipe = {
            "weights": FORMAT,
            "method": method,
            "options": {"scale_rule": rule},
            "embeddings": "keep",
            "lm_head": "keep",
        }
        score = subject.tried(recipe, context.work / "marlin")
        found[label] = score["perplexity"] / base - 1
        found["kl"][label] = score["kl"]
    return found


EXPERIMENT = Experiment(
    number=62,
    name="marlin",
    claim="A 4-bit-weight, 16-bit-activation product can stay bound by memory up to batch sizes of 16 to 32 and so keep nearly its full "
    "fourfold gain.",
    source="arXiv 2408.11743, PPoPP 2025",
    checks=(
        Check(
            "words of the published packing, derived from the instruction's fragment: wrong ones",
            "words.packed",
            "==",
            0,
        ),
        Check("values unpacked by the fp16 tricks: wrong ones", "words.unpacked", "==", 0),
        Check("exact activations: mean error below 1e-3 of the mean magnitude", "error.exact", "<", 1e-3),
        Check("stripes: steps lost or done twice (layers)", "stripes.lost", "==", 0),
        Check("stripes: sums handed on by a worker, at most one", "stripes.handed_on", "<=", 1),
        Check("stripes: the busiest worker at most 1.1 times the mean", "stripes.stripes", "<=", 1.1),
        Check("exact activations, 1 to 32 rows: at least 60 % of the limit", "speed.exact_least_share", ">=", 0.6),
        Check("8-bit activations, 1 to 32 rows: at least 60 % of the limit", "speed.int8_least_share", ">=", 0.6),
        Check("1 row: 3 times float32", "speed.m1.exact_gain", ">=", 3),
        Check("4 rows: 2 times float32", "speed.m4.exact_gain", ">=", 2),
        Check("up to 16 rows never slower than float32", "speed.exact_least_gain", ">=", 1),
        Check("16 rows with 8-bit activations: 3 times float32", "speed.m16.int8_gain", ">=", 3),
        Check("unpacking first, 4 rows: slower than float32", "speed.widened_gain_of_4", "<", 1),
        Check(
            "int4/g128 by GPTQ with clipped scales: perplexity rises by 2 % at most (anybit-tiny)",
            "tiny.gptq_clip",
            "<=",
            0.02,
        ),
        Check("clipped GPTQ diverges less than GPTQ", "tiny.kl.gptq_clip", "<", "tiny.kl.gptq"),
        Check("GPTQ less than rounding to nearest", "tiny.kl.gptq", "<", "tiny.kl.rtn"),
    ),
    run=run,
    key_figures={
        "exact, 1 row, over float32": "speed.m1.exact_gain",
        "16 rows": "speed.m16.exact_gain",
        "int8, 16 rows": "speed.m16.int8_gain",
        "least share of the limit, exact": "speed.exact_least_share",
        "int8": "speed.int8_least_share",
        "perplexity rise": "tiny.gptq_clip",
        "KL": "tiny.kl.gptq_clip",
        "of rounding": "tiny.kl.rtn",
    },
    notes="Exact activations are float32 with float32 sums, where a core meets its arithmetic limit at a few rows; 8-bit ones move it out. "
    "One thread, processor time, weights read from memory. The GPU kernel is checked as data, not run.",
)
