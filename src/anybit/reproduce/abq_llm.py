"""ABQ-LLM (arXiv 2408.08554), its engine: any pair of widths as counts of bits of n by m planes.

Exactness: the native kernel at all widths of weights and signed activations against float64, odd sizes and groups, and the reference at all
pairs of 1 to 8 bits and both rules of signs against int64.  Format: the balanced 2-bit grid of five levels beside four levels and bipolar
ones, in dB and in bytes.  Speed, one thread: how time grows with the product of both widths, with many rows; and for one row, weights read
from memory, beside the kernel that multiplies bytes.  The block-wise training of the paper is another matter and not measured here.
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
from anybit.ops.bitserial import bitserial_matmul
from anybit.reproduce.clock import EVICT, copies, medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.tensors import SignRule, bit_planes, quantize

RULES: tuple[SignRule, ...] = ("twos", "unsigned")


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick times fewer rounds."""
    return {
        "exact": {"reference": _reference(1 if quick else 3), "kernel": _kernel()},
        "grid": _grids(),
        "speed": _speed(context, 5 if quick else 15),
    }


def _reference(repeats: int) -> int:
    """Sums of the readable reference that differ from int64 products."""
    rng = np.random.default_rng(0)
    wrong = 0
    for p, q, _ in np.ndindex(8, 8, repeats):
        rule_x, rule_w = (RULES[i] for i in rng.integers(2, size=2))
        k = int(rng.integers(1, 500))
        x = bit_planes(torch.from_numpy(rng.integers(0, 2 << p, (int(rng.integers(1, 9)), k))), p + 1, rule_x)
        w = bit_planes(torch.from_numpy(rng.integers(0, 2 << q, (7, k))), q + 1, rule_w)
        wrong += int((bitserial_matmul(x, w) != x.values() @ w.values().T).sum())
    return wrong


def _kernel() -> float:
    """Largest error of the kernel over weights of 1 to 8 and activations of 2 to 8 bits, in units of the sum of magnitudes."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for p in range(1, 9):
        for q in range(2, 9):
            m, n, k = 1 + (p * q) % 5, 17 + p, 200 + 13 * q
            weight, x = torch.randn(n, k, generator=generator), torch.randn(m, k, generator=generator)
            w = quantize(weight, TensorFormat.parse(f"uint{p}/g64+z" if p % 2 else f"int{p}/row"))
            act = TensorFormat.parse(f"int{q}n/row")
            given = quantize(x, TensorFormat.parse(f"int{q}n/row")).dequantize().double()
            true = given @ w.dequantize().double().T
            # codes less their zero points are integers that float32 holds; what is left is one rounding a group and scales
            size = given.abs() @ (w.dequantize().double().abs() + w.scales().double().abs().max() * 2**p).T
            error = (ops.matmul(x, ops.prepack(w, "bits"), act=act).double() - true).abs() / size
            worst = max(worst, float(error.max()))
    return worst


def _grids() -> dict[str, float]:
    """Signal to noise of normal numbers, in dB, with the best step of each grid; bits a weight of five levels as three in seven bits."""
    x = np.random.default_rng(0).standard_normal(1 << 18)

    def best(levels: np.ndarray) -> float:
        errors = []
        for step in np.linspace(0.3, 2.0, 171):
            edges = (levels[1:] + levels[:-1]) / 2 * step
            errors.append(float(np.square(x - levels[np.searchsorted(edges, x)] * step).mean()))
        return -10 * math.log10(min(errors))

    return {
        "five": best(np.arange(-2.0, 3.0)),
        "four": best(np.arange(-2.0, 2.0)),
        "bipolar": best(np.array([-1.5, -0.5, 0.5, 1.5])),
        "eight": best(np.arange(-4.0, 4.0)),
        "bits_of_five": 7 / 3,
    }


def _speed(context: Context, rounds: int) -> dict[str, Any]:
    """Ratios of processor times: by widths with 64 rows of 1024 x 4096, and one row of 16384 x 4096 beside bytes."""
    generator = torch.Generator().manual_seed(1)
    small, large = torch.randn(1024, 4096, generator=generator), torch.randn(16384, 4096, generator=generator)
    rows, row = torch.randn(64, 4096, generator=generator), torch.randn(1, 4096, generator=generator)
    pairs = [(p, q) for p in (1, 2, 4, 8) for q in (2, 4, 8)]
    many = {p: ops.prepack(quantize(small, TensorFormat.parse(f"int{p}/row")), "bits") for p in (1, 2, 4, 8)}
    act = {q: TensorFormat.parse(f"int{q}n/row") for q in (2, 4, 8)}
    cases = {f"w{p}a{q}": partial(ops.matmul, rows, many[p], act=act[q]) for p, q in pairs}
    one = {p: quantize(large, TensorFormat.parse(f"int{p}/g128")) for p in (1, 2, 4, 8)}
    single = {
        f"w{p}a{q}": copies(partial(ops.prepack, one[p], "bits"), partial(ops.matmul, row, act=act[q]), 3)
        for p, q in pairs
        if p < 8
    }
    single |= {
        f"bytes{p}": copies(partial(ops.prepack, w), partial(ops.matmul, row, act=act[8]), 3) for p, w in one.items()
    }
    with one_thread():
        time = medians(cases, rounds, 0, "64 rows", context.progress)
        alone = medians(single, rounds, EVICT, "one row", context.progress)
    unit = time["w2a2"] / 4
    off = {name: time[name] / unit / (p * q) for name, (p, q) in zip(cases, pairs, strict=True)}
    return {
        "us_of_64": {name: 1e6 * value for name, value in time.items()},
        "us_of_1": {name: 1e6 * value for name, value in alone.items()},
        "most_off": max(max(ratio, 1 / ratio) for name, ratio in off.items() if name != "w1a2"),
        "w2a8": alone["bytes8"] / alone["w2a8"],
        "w4a4": alone["bytes8"] / alone["w4a4"],
        "w2a8_over_bytes": alone["bytes2"] / alone["w2a8"],
        "w2a2_over_bytes": alone["bytes2"] / alone["w2a2"],
    }


EXPERIMENT = Experiment(
    number=31,
    name="abq_llm",
    claim="Block-wise learned scaling with a balanced 2-bit grid, run as AND-and-popcount bit-plane products, makes any pair of weight and "
    "activation widths both accurate and fast.",
    source="arXiv 2408.08554, AAAI 2025",
    checks=(
        Check("1 to 8 by 1 to 8 bits, both rules of signs: sums unlike int64 (reference)", "exact.reference", "==", 0),
        Check("kernel, 1 to 8 by 2 to 8 bits: largest error over the sum of magnitudes", "exact.kernel", "<=", 1e-6),
        Check("five levels better than four by at least 2 dB", "grid.five", ">=", "grid.four", 2.0),
        Check("five levels at 2.33 bits better than bipolar ones at 2", "grid.five", ">", "grid.bipolar"),
        Check("M=64: time within 20 % of the product of widths", "speed.most_off", "<=", 1.2),
        Check("M=1: W2A8 at least 1.5 times as fast as W8A8 in bytes", "speed.w2a8", ">=", 1.5),
        Check("M=1: W2A8 faster than 2-bit weights unpacked to bytes", "speed.w2a8_over_bytes", ">", 1.0),
    ),
    run=run,
    key_figures={
        "off the product of widths, most": "speed.most_off",
        "W2A8 over W8A8, M=1": "speed.w2a8",
        "W2A8 over unpacked W2A8, M=1": "speed.w2a8_over_bytes",
        "dB, five levels": "grid.five",
        "dB, four": "grid.four",
    },
    notes="Only the engine and the grid; learned clipping and scaling with the distribution losses are not measured. Processors multiply "
    "bytes 64 at a time, so counting bits of 2 by 8 planes loses to unpacking 2-bit weights; binary tensor cores are not here.",
)
