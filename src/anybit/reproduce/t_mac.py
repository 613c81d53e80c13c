"""T-MAC (EuroSys 2025): products by looking sums up, a plane of weight bits at a time, with no multiplication and no dequantization.

Correctness: real weights through exact tables, int8 tables and halving additions against float64; ternary weights with int16
tables against int32, bit for bit (bitnet.cpp's lossless tables).  Quality: the bundled model at 2 bits through lookups of 8-bit
activations, beside the same weights with exact ones.  Speed, one thread, weights read from memory: the native kernel with int16 tables
at 1 to 4 bits; beside it the kernel that dequantizes in registers, the integer product, and torch in float32; and, in cache, the kernel
of 512-bit registers beside that of 256.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from anybit import models, ops
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor
from anybit.models.evaluation import perplexity
from anybit.models.weights import Overlay
from anybit.ops import native
from anybit.ops.lookup import lookup_linear
from anybit.reproduce.clock import EVICT, copies, medians, one_thread, reading
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import windows
from anybit.tensors import QTensor, quantize

ACT = TensorFormat.parse("int8/g128")
WIDTHS = range(1, 5)
SHAPES = {"4096x4096": (4096, 4096), "11008x4096": (11008, 4096)}


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick takes one shape, fewer rounds and tokens."""
    return {
        "error": _errors(),
        "ternary": _ternary(),
        "model": _model(context, 1_500 if quick else 6_000),
        "speed": _speed(context, quick),
    }


def _weight(name: str = "model.layers.0.mlp.up_proj.weight") -> torch.Tensor:
    weight = models.load("anybit-tiny").weights.get(name)
    assert isinstance(weight, torch.Tensor)
    return weight.float()


def _nmse(y: torch.Tensor, true: torch.Tensor) -> float:
    return float((y.double() - true).square().sum() / true.square().sum())


def _errors() -> dict[str, float]:
    """Normalised squared errors of tables on real weights and normal activations, the largest over widths with and without zero points."""
    weight = _weight()
    weight = weight[:, : weight.shape[1] // 128 * 128]
    x = torch.randn(8, weight.shape[1], generator=torch.Generator().manual_seed(0))
    found: dict[str, list[float]] = {"exact": [], "int8": [], "average": [], "activations": []}
    for bits in WIDTHS:
        for spec in (f"int{bits}/g128", f"uint{bits}/g128+z"):
            w = quantize(weight, TensorFormat.parse(spec), "mse")
            true = x.double() @ w.dequantize().double().T
            for tables in ("exact", "int8", "average"):
                found[tables].append(_nmse(lookup_linear(x, w, tables), true))
            found["activations"].append(_nmse(ops.matmul(x, ops.prepack(w, "nibbles"), act=ACT), true))
    return {name: max(values) for name, values in found.items()}


def _ternary() -> dict[str, int]:
    """Results of ternary weights and 8-bit activations that differ from int32 sums, by the reference and by the kernel."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-127, 128, (9, 1024), generator=generator)
    x[:, 0] = 127  # so that scales are 1
    w = torch.randint(-1, 2, (50, 1024), generator=generator)
    w[:, 0] = 1
    q = quantize(w.float(), TensorFormat.parse("ternary/row"))
    true = (x.int() @ w.int().T).float()
    act = TensorFormat.parse("int8/row")
    kernel = ops.matmul(x.float(), ops.prepack(q, "nibbles"), act=act)
    return {
        "reference": int((lookup_linear(x.float(), q, "int16", act) != true).sum()),
        "kernel": int((kernel != true).sum()),
    }


def _model(context: Context, tokens: int) -> dict[str, float]:
    """Perplexities of anybit-tiny at 2 bits, and seconds of all matrix products of one token by lookup and by torch in float32."""
    model = models.load("anybit-tiny")
    fmt = TensorFormat.parse("int2/g64")
    names = [name for name in model.weights.names() if name.endswith("proj.weight")]
    made = {name: quantize(model.weights.get(name, False).float(), fmt, "mse") for name in names}  # type: ignore[union-attr]
    weights = Overlay(model.weights, dict(made))
    scored = windows(model, limit=tokens)
    act = TensorFormat.parse("int8/row")
    context.progress("perplexity", 0, 1)
    found = {
        "exact": perplexity(TorchExecutor(model.plan, weights), scored).perplexity,
        "lookup": perplexity(TorchExecutor(model.plan, weights, act=act), scored).perplexity,
    }
    generator = torch.Generator().manual_seed(0)
    x = {k: torch.randn(1, k, generator=generator) for k in {w.shape[1] for w in made.values()}}
    packed = {name: ops.prepack(w, "nibbles") for name, w in made.items()}
    plain = {name: w.dequantize() for name, w in made.items()}

    def by_lookup() -> None:
        for w in packed.values():
            ops.matmul(x[w.k], w, act=act)

    def by_torch() -> None:
        for w in plain.values():
            torch.nn.functional.linear(x[w.shape[1]], w)

    with one_thread():
        seconds = medians({"lookup": by_lookup, "torch": by_torch}, 15, 0, "products of a token", context.progress)
    return {
        **found,
        "change": found["lookup"] / found["exact"] - 1,
        "lookup_us": 1e6 * seconds["lookup"],
        "torch_us": 1e6 * seconds["torch"],
        "faster": seconds["torch"] / seconds["lookup"],
    }


def _speed(context: Context, quick: bool) -> dict[str, Any]:
    rounds = 9 if quick else 31
    found: dict[str, Any] = {}
    with one_thread():
        for name, (n, k) in SHAPES.items() if not quick else [("4096x4096", SHAPES["4096x4096"])]:
            found[name] = _shape(context, n, k, rounds)
        found["isa"] = _instruction_sets(context, rounds)
    shapes = [found[name] for name in SHAPES if name in found]
    for figure in ("w2_over_w1", "w4_over_w1"):
        found[f"least_{figure}"] = min(shape[figure] for shape in shapes)
        found[f"most_{figure}"] = max(shape[figure] for shape in shapes)
    for figure in ("over_exact1", "over_exact2", "over_torch", "over_integers1", "over_integers2"):
        found[figure] = min(shape[figure] for shape in shapes)
    return found


def _shape(context: Context, n: int, k: int, rounds: int) -> dict[str, Any]:
    """Seconds of one row of x by width and kernel, and the ratios that are asked for."""
    generator = torch.Generator().manual_seed(n)
    x, weight = torch.randn(1, k, generator=generator), torch.randn(n, k, generator=generator)
    cases = {"torch": copies(weight.clone, partial(torch.nn.functional.linear, x), 2)}
    sizes: dict[int, int] = {}
    for bits in WIDTHS:
        context.progress("packing", bits - 1, len(WIDTHS))
        q: QTensor = quantize(weight, TensorFormat.parse(f"int{bits}/g128"))
        sizes[bits] = ops.prepack(q, "nibbles").nbytes
        tiles = partial(ops.prepack, q)
        cases[f"lookup{bits}"] = copies(partial(ops.prepack, q, "nibbles"), partial(ops.matmul, x, act=ACT))
        cases[f"integers{bits}"] = copies(tiles, partial(ops.matmul, x, act=ACT))
        if bits <= 2:
            cases[f"exact{bits}"] = copies(tiles, partial(ops.matmul, x))
    largest = max(sizes.values())
    cases["read"] = reading(largest)
    seconds = medians(cases, rounds, EVICT, f"{n} x {k}", context.progress)
    return {
        "us": {name: 1e6 * value for name, value in seconds.items()},
        "share": {f"w{bits}": sizes[bits] / largest * seconds["read"] / seconds[f"lookup{bits}"] for bits in WIDTHS},
        "w2_over_w1": seconds["lookup2"] / seconds["lookup1"],
        "w4_over_w1": seconds["lookup4"] / seconds["lookup1"],
        "over_exact1": seconds["exact1"] / seconds["lookup1"],
        "over_exact2": seconds["exact2"] / seconds["lookup2"],
        "over_torch": min(seconds["torch"] / seconds[f"lookup{bits}"] for bits in WIDTHS),
        "over_integers1": seconds["integers1"] / seconds["lookup1"],
        "over_integers2": seconds["integers2"] / seconds["lookup2"],
    }


def _instruction_sets(context: Context, rounds: int) -> dict[str, float]:
    """Seconds of 1024 x 1024 at 2 bits, in cache, by instruction set; how much faster than 256-bit registers the best is."""
    module = native.load()
    if module is None:
        return {"best_over_avx2": math.nan}
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 1024, generator=generator), torch.randn(1024, 1024, generator=generator)
    planes = ops.prepack(quantize(weight, TensorFormat.parse("int2/g128")), "nibbles")
    before = str(module.isa())
    found: dict[str, float] = {}
    try:
        for name in [name for name, _, present in module.isas() if present and name in ("avx512", "avx2", "neon")]:
            module.set_isa(name)
            seconds = medians({name: partial(ops.matmul, x, planes, act=ACT)}, rounds, 0, name, context.progress)
            found[name] = 1e6 * seconds[name]
    finally:
        module.set_isa(before)
    return {**found, "best_over_avx2": found["avx2"] / min(found.values()) if "avx2" in found else math.nan}


EXPERIMENT = Experiment(
    number=3,
    name="t_mac",
    claim="Looking up partial sums by weight bit plane needs no multiply and no dequantization, and its time grows linearly with the "
    "number of weight bits.",
    source="EuroSys 2025",
    checks=(
        Check(
            "exact tables, 1 to 4 bits, with and without zero points: normalised squared error",
            "error.exact",
            "<=",
            1e-10,
        ),
        Check("tables of int8: normalised squared error", "error.int8", "<=", 1e-4),
        Check("ternary weights, int16 tables: results unlike int32, reference", "ternary.reference", "==", 0),
        Check("ternary weights, int16 tables: results unlike int32, kernel", "ternary.kernel", "==", 0),
        Check("model at 2 bits: perplexity changes by at most 0.5 %", "model.change", "<=", 0.005),
        Check("matrix products of a token at 2 bits faster than torch float32", "model.faster", ">=", 1.0),
        Check("2 bits take at least 1.6 times as long as 1", "speed.least_w2_over_w1", ">=", 1.6),
        Check("2 bits take at most 2.3 times as long as 1", "speed.most_w2_over_w1", "<=", 2.3),
        Check("4 bits take at least 3 times as long as 1", "speed.least_w4_over_w1", ">=", 3.0),
        Check("4 bits take at most 4.5 times as long as 1", "speed.most_w4_over_w1", "<=", 4.5),
        Check("1 bit at least twice as fast as dequantizing in registers", "speed.over_exact1", ">=", 2.0),
        Check("2 bits at least 1.3 times as fast as dequantizing in registers", "speed.over_exact2", ">=", 1.3),
        Check("at least 4 times as fast as torch float32, at every width", "speed.over_torch", ">=", 4.0),
        Check("beyond the paper: the widest registers over 256 bits, in cache", "speed.isa.best_over_avx2", ">=", 1.2),
    ),
    run=run,
    key_figures={
        "4 bits over 1": "speed.most_w4_over_w1",
        "1 bit over dequantizing": "speed.over_exact1",
        "1 bit over the integer product": "speed.over_integers1",
        "over torch float32": "speed.over_torch",
        "error of int8 tables": "error.int8",
    },
    notes="The kernel's tables are int16 of 8-bit activations, so that it loses nothing and gives the bits of the integer product; tables "
    "of int8 and halving additions are the reference in numpy. On processors with integer dot products the lookup gains nothing over "
    "them (figure `over_integers`): dispatch takes the integer product. Energy and phones are not measured.",
)
