"""Bipolar integers (arXiv 2409.17870): every bit means -1 or +1, so n x m bits are n m identical binary products and one constant.

Exactness: all widths 1 to 8 on both sides against products of int64, the conversion of integers, the one formula with its one constant.
Format: signal to noise of normal numbers with the best scale; a language model with 2- and 3-bit weights, rounded to nearest.
Speed, one thread: products by counts of bits (`ops.bitserial`, whose counts are compiled) beside torch's float32 product and the native
int8 kernel.  How time grows with both widths is asked of `FEW` rows: the planes of one row share the reading of the weights, which takes
longest there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from anybit import formats, models, ops
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor
from anybit.models.evaluation import perplexity
from anybit.models.weights import Overlay
from anybit.ops.bitserial import bitserial_matmul, plane_products
from anybit.reproduce.clock import medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import windows
from anybit.tensors import BitPlanes, SignRule, bit_planes, quantize
from anybit.tensors.bitplanes import as_bipolar
from anybit.tensors.scale_statistics import gaussian_error

SIZE = 4096
FEW = 16
RULES: tuple[SignRule, ...] = ("twos", "unsigned")


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores fewer tokens and times fewer rounds."""
    return {
        "exact": _exact(1 if quick else 4),
        "snr": _signal_to_noise(),
        "tiny": _perplexities(context, 1_000 if quick else 4_000),
        "speed": _speed(context, 5 if quick else 15),
    }


def _planes(rng: np.random.Generator, rows: int, cols: int, bits: int) -> BitPlanes:
    return bit_planes(torch.from_numpy(rng.integers(0, 2**bits, (rows, cols))), bits, "bipolar")


def _exact(repeats: int) -> dict[str, int]:
    """Sums that differ from int64 products, from the closed formula, and values that differ after conversion; all must be 0."""
    rng = np.random.default_rng(0)
    wrong = {"products": 0, "formula": 0, "conversion": 0, "pairs": 0}
    for n, m, _ in np.ndindex(8, 8, repeats):
        cols = int(rng.integers(1, 700))
        x, w = _planes(rng, int(rng.integers(1, 18)), cols, n + 1), _planes(rng, 11, cols, m + 1)
        true = x.values() @ w.values().T
        wrong["products"] += int((bitserial_matmul(x, w) != true).sum())
        # K (2^n - 1) (2^m - 1) - 2 sum 2^(i + j) popcount(x_i ^ w_j), of which plane products are K - 2 popcount.
        differing = (cols - plane_products(x, w).squeeze(2)) // 2
        power = 2 ** torch.arange(n + 1)[:, None, None, None] * 2 ** torch.arange(m + 1)[None, :, None, None]
        formula = cols * (2 ** (n + 1) - 1) * (2 ** (m + 1) - 1) - 2 * (power * differing).sum((0, 1))
        wrong["formula"] += int((formula != true).sum())
        wrong["pairs"] += 1
    for bits in range(1, 9):
        codes = torch.arange(2**bits).reshape(1, -1)
        for rule in RULES:
            given = bit_planes(codes, bits, rule)
            bipolar, scale, shift = as_bipolar(given)
            wrong["conversion"] += int((bipolar.values() * scale + shift != given.values()).sum())
    return wrong | {"all": wrong["products"] + wrong["formula"] + wrong["conversion"]}


def _signal_to_noise() -> dict[str, dict[str, float]]:
    """dB of standard normal numbers rounded with the best scale, exactly (integrals): two's complement and bipolar, 2 to 4 bits."""
    found = {}
    for bits in (2, 3, 4):
        found[f"b{bits}"] = {
            kind: _best_db(np.sort(formats.get(name).values))
            for kind, name in (("twos", f"int{bits}"), ("bipolar", f"bipolar{bits}"))
        }
    return found


def _best_db(levels: np.ndarray) -> float:
    grid = np.geomspace(0.05, 3, 400)
    for _ in range(3):
        errors = [gaussian_error(levels, scale) for scale in grid]
        best = int(np.argmin(errors))
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 40)
    return float(-10 * np.log10(min(errors)))


def _perplexities(context: Context, tokens: int) -> dict[str, float]:
    """Of anybit-tiny on held-out text with the matrices of its blocks at 2 and 3 bits, groups of 64, scales of least squared error."""
    model = models.load("anybit-tiny")
    scored = windows(model, limit=tokens)
    names = [name for name in model.plan.weight_names() if ".layers." in name and len(model.weights.shape(name)) == 2]
    found = {"original": perplexity(TorchExecutor(model.plan, model.weights), scored).perplexity}
    for bits in (2, 3):
        for kind in ("int", "bipolar"):
            context.progress(f"perplexity of {kind}{bits}", bits - 2, 2)
            fmt = TensorFormat.parse(f"{kind}{bits}/g64")
            rounded = {name: quantize(_dense(model, name), fmt, "mse").dequantize() for name in names}
            executor = TorchExecutor(model.plan, Overlay(model.weights, rounded))
            found[f"{kind}{bits}"] = perplexity(executor, scored).perplexity
    return found


def _dense(model: models.Model, name: str) -> torch.Tensor:
    weight = model.weights.get(name)
    return weight.float() if isinstance(weight, torch.Tensor) else weight.dequantize()


def _speed(context: Context, rounds: int) -> dict[str, Any]:
    """Ratios of processor time with 4096 x 4096 weights, and how time grows with the product of both widths."""
    rng = np.random.default_rng(1)
    weights = {m: _planes(rng, SIZE, SIZE, m) for m in (1, 2, 3, 4)}
    rows = {n: _planes(rng, 1, SIZE, n) for n in (1, 2, 3, 4)}
    dense, x = torch.randn(SIZE, SIZE), torch.randn(1, SIZE)
    packed, act = ops.prepack(quantize(dense, TensorFormat.parse("int8/row"))), TensorFormat.parse("int8/row")
    codes = torch.from_numpy(rng.integers(0, 4, (1, SIZE)))
    many, many_x = _planes(rng, 64, SIZE, 1), torch.randn(64, SIZE)
    cases: dict[str, Callable[[], object]] = {
        f"{n}x{m}": partial(bitserial_matmul, rows[n], weights[m]) for n in rows for m in weights
    }
    few = {n: _planes(rng, FEW, SIZE, n) for n in rows}
    cases |= {f"{n}x{m} of {FEW}": partial(bitserial_matmul, few[n], weights[m]) for n in rows for m in weights}
    cases |= {
        "fp32": lambda: x @ dense.T,
        "int8": lambda: ops.matmul(x, packed, act=act),
        "pack": lambda: bit_planes(codes, 2, "bipolar"),
        "1x1 of 64": lambda: bitserial_matmul(many, weights[1]),
        "int8 of 64": lambda: ops.matmul(many_x, packed, act=act),
    }
    with one_thread():
        time = medians(cases, rounds, what="products", progress=context.progress)
    products = np.array([n * m for n in rows for m in weights], float)

    def linear(of: str) -> float:
        """R² of a straight line through the products of both widths."""
        seconds = np.array([time[f"{n}x{m}{of}"] for n in rows for m in weights])
        slope, start = np.polyfit(products, seconds, 1)
        residual = seconds - (slope * products + start)
        return float(1 - (residual**2).sum() / ((seconds - seconds.mean()) ** 2).sum())

    return {
        "us": {name: 1e6 * value for name, value in time.items()},
        "linear": linear(f" of {FEW}"),
        "linear_one_row": linear(""),
        "w1a1": time["fp32"] / time["1x1"],
        "w1a2": time["fp32"] / time["2x1"],
        "w2a2": time["fp32"] / time["2x2"],
        "w2a2_int8": time["int8"] / time["2x2"],
        "w1a1_of_64": time["int8 of 64"] / time["1x1 of 64"],
        "pack": time["pack"] / time["2x2"],
    }


EXPERIMENT = Experiment(
    number=9,
    name="apmm",
    claim="Bipolar integers, whose every bit means plus or minus one, turn an n-bit by m-bit product into n times m identical binary "
    "products without sign corrections.",
    source="arXiv 2409.17870, ASP-DAC 2025",
    checks=(
        Check(
            "products of 1 to 8 by 1 to 8 bits that differ from int64, and values lost in conversion",
            "exact.all",
            "==",
            0,
        ),
        Check("2 bits, normal numbers: bipolar 9.23 dB, within 0.05", "snr.b2.bipolar", ">=", 9.18),
        Check("two's complement 8.25 dB, within 0.05", "snr.b2.twos", "<=", 8.30),
        Check(
            "3 bits: bipolar above two's complement by 0.34 dB, within 0.05",
            "snr.b3.bipolar",
            ">=",
            "snr.b3.twos",
            0.29,
        ),
        Check("4 bits: bipolar above two's complement", "snr.b4.bipolar", ">", "snr.b4.twos"),
        Check("2-bit weights: perplexity below two's complement (anybit-tiny)", "tiny.bipolar2", "<", "tiny.int2"),
        Check("3-bit weights: the same", "tiny.bipolar3", "<", "tiny.int3"),
        Check(f"time of {FEW} rows is linear in n m (R^2)", "speed.linear", ">=", 0.98),
        Check("M=1, W1A1: 8 times as fast as float32", "speed.w1a1", ">=", 8),
        Check("M=1, W1A2: 5 times", "speed.w1a2", ">=", 5),
        Check("M=1, W2A2: 3 times", "speed.w2a2", ">=", 3),
        Check("M=1, W2A2: faster than 8-bit integers", "speed.w2a2_int8", ">", 1),
        Check("M=64, W1A1: twice as fast as 8-bit integers", "speed.w1a1_of_64", ">=", 2),
        Check("packing a row takes a tenth of its product at most", "speed.pack", "<=", 0.1),
    ),
    run=run,
    key_figures={
        "dB at 2 bits": "snr.b2.bipolar",
        "two's complement": "snr.b2.twos",
        "perplexity, 2-bit weights": "tiny.bipolar2",
        "with two's complement": "tiny.int2",
        "W1A1 over float32, M=1": "speed.w1a1",
        "W2A2 over int8, M=1": "speed.w2a2_int8",
    },
    notes="Times are of one thread, weights in cache or not as the turns of the others leave them; binary tensor cores are not here. With "
    "one row time follows the bytes of the weights (speed.linear_one_row). Weights are rounded to nearest, without training.",
)
