"""L-Mul (arXiv 2410.00907): a product of floats by one integer addition. Errors of single products and of dot products, and the
perplexity of two language models whose products are L-Mul: those of attention (as published without training), of weights, or all.

"Plain" is the published rule. "Corrected" multiplies every finished sum by a gain found on text that is not scored (`models.emulation`).
The baseline of 8 bits rounds both operands to E4M3 with a scale a row and multiplies exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anybit import formats, models, tensors
from anybit.formats import Float, TensorFormat
from anybit.models import Model, TorchExecutor
from anybit.models.emulation import Emulation, Where, calibrated
from anybit.models.evaluation import cut, perplexity
from anybit.models.interpreter import Multiply
from anybit.ops import Product, emulated_matmul
from anybit.ops.product import multiply
from anybit.reproduce.experiment import Check, Context, Experiment

MANTISSAS = (2, 3, 4, 7)
"""Of E5M2, E4M3, the largest that the paper calls l-bit, and bfloat16."""

CASES: tuple[tuple[str, Where, int], ...] = (
    ("attention4", "attention", 4),
    ("linear3", "linear", 3),
    ("all3", "all", 3),
)
"""label, where products are emulated, mantissa bits."""


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores 1 000 tokens of each model and 200 000 products."""
    pairs = 200_000 if quick else 2_000_000
    errors = {f"m{m}": _products(m, pairs) for m in MANTISSAS}
    errors |= {name: _float8(name, mantissa, pairs) for name, mantissa in (("e4m3fn", 3), ("e5m2", 2))}
    scored = 1_000 if quick else 2_500
    tiny = models.load("anybit-tiny")
    stories = models.load(context.file("stories260k/config.json").parent)
    return {
        "pairs": pairs,
        "errors": errors,
        "mismatches": sum(_mismatches(m, pairs // 10) for m in MANTISSAS),
        "dot": {f"m{m}": _dot(m) for m in (3, 4)},
        "tiny": _perplexities(context, tiny, (tiny.path / "heldout.txt").read_text(encoding="utf-8"), scored),
        "stories": _perplexities(
            context, stories, context.file("text/tinystories_train_excerpt.txt").read_text(encoding="utf-8"), scored
        ),
    }


def _normal(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=generator), torch.randn(count, generator=generator)


def _products(mantissa: int, pairs: int) -> dict[str, dict[str, float]]:
    """Bias and root mean square of the relative error of a product of normal numbers, operands of `mantissa` bits."""
    a, b = _normal(pairs, mantissa)
    nonzero = (a != 0) & (b != 0)  # of millions of numbers some are exactly 0, of which there is no relative error
    a, b = a[nonzero], b[nonzero]
    true = a.double() * b.double()
    name = f"e8m{mantissa}"
    fmt = formats.get(name)
    rounded = Product("exact", name)
    product = multiply(rounded.prepare(a), rounded.prepare(b), rounded)
    found = {"exact": product, "rounded": fmt.round(product)}
    for rule in ("lmul_add", "lmul_formula"):
        p = Product(rule, name)
        found[rule] = multiply(p.prepare(a), p.prepare(b), p)
    found["corrected"] = found["lmul_add"].double() * (true.abs().sum() / found["lmul_add"].double().abs().sum())
    relative = {key: value.double() / true - 1 for key, value in found.items()}
    return {key: {"bias": e.mean().item(), "rms": e.square().mean().sqrt().item()} for key, e in relative.items()}


def _float8(name: str, seed: int, pairs: int) -> dict[str, dict[str, float]]:
    """The same errors with operands in an 8-bit float, whose small products underflow: multiplied exactly, and then rounded to it."""
    a, b = _normal(pairs, seed)
    true = a.double() * b.double()
    fmt = formats.get(name)
    product = fmt.round(a).double() * fmt.round(b).double()
    relative = {"exact": product / true - 1, "rounded": fmt.round(product) / true - 1}
    return {key: {"bias": e.mean().item(), "rms": e.square().mean().sqrt().item()} for key, e in relative.items()}


def _mismatches(mantissa: int, pairs: int) -> int:
    """Products that differ from the equations evaluated with float64 fractions and exponents: must be none."""
    name = f"e8m{mantissa}"
    fmt = formats.get(name)
    assert isinstance(fmt, Float)
    a, b = (fmt.round(t).double() for t in _normal(pairs, 100 + mantissa))
    (fa, ea), (fb, eb) = torch.frexp(a.abs()), torch.frexp(b.abs())
    size = 2.0 ** -(mantissa if mantissa <= 3 else 3 if mantissa == 4 else 4)
    total = (2 * fa - 1) + (2 * fb - 1) + size  # x + y + 2^-l of 1 + x = 2 fraction
    power = torch.exp2((ea + eb - 2).double())
    wanted = {
        "lmul_formula": power * (1 + total),
        # The sum of mantissas carries into the exponent, which doubles what is left.
        "lmul_add": power * torch.where(total >= 2, 4 * (total - 1), torch.where(total >= 1, 2 * total, 1 + total)),
    }
    wrong = 0
    for rule, value in wanted.items():
        got = multiply(a.float(), b.float(), Product(rule, name))  # type: ignore[arg-type]
        wrong += int((got.double() != value * torch.sign(a) * torch.sign(b)).sum())
    return wrong


def _dot(mantissa: int) -> dict[str, float]:
    """Root mean square error of dot products of 256 terms over that of their values: plain and corrected L-Mul, exact products."""
    generator = torch.Generator().manual_seed(7)
    x, w = torch.randn(256, 256, generator=generator), torch.randn(256, 256, generator=generator)
    true = x.double() @ w.double().T
    name = f"e8m{mantissa}"
    plain = emulated_matmul(x, w, Product("lmul_add", name)).double()
    gain = float((plain * true).sum() / plain.square().sum())
    found = {"plain": plain, "corrected": gain * plain, "exact": emulated_matmul(x, w, Product("exact", name)).double()}
    return {key: ((y - true).square().mean() / true.square().mean()).sqrt().item() for key, y in found.items()}


def _perplexities(context: Context, model: Model, text: str, tokens: int) -> dict[str, Any]:
    """Perplexity, and its relative increase for each case: exact products of rounded operands, plain and corrected L-Mul."""
    windows = cut(model.tokenizer.encode(text), 256, model.tokenizer.bos)
    seen, scored = windows[-2:], windows[: max(1, tokens // 255)]
    what = f"perplexity of {model.path.name}"

    def score(product: Multiply | None) -> float:
        executor = TorchExecutor(model.plan, model.weights, multiply=product)
        return perplexity(executor, scored, lambda done, total: context.progress(what, done, total)).perplexity

    base = score(None)
    found: dict[str, Any] = {
        "perplexity": base,
        "tokens": sum(len(w) - 1 for w in scored),
        "e4m3": score(_eight_bits("e4m3fn")) / base - 1,
        "e5m2": score(_eight_bits("e5m2")) / base - 1,
    }
    for label, where, mantissa in CASES:
        plain = Emulation(Product("lmul_add", f"e8m{mantissa}"), where)
        corrected = calibrated(plain, model.plan, model.weights, seen)
        rise = {
            "operands": score(Emulation(Product("exact", f"e8m{mantissa}"), where)) / base - 1,
            "plain": score(plain) / base - 1,
            "corrected": score(corrected) / base - 1,
        }
        gains: Sequence[float] = list(corrected.gains.values())
        found[label] = rise | {"ratio": rise["corrected"] / rise["plain"], "gain": sum(gains) / len(gains)}
    return found


def _eight_bits(name: str) -> Multiply:
    fmt = TensorFormat.parse(f"{name}/row")

    def product(site: str, x: Tensor, w: Tensor) -> Tensor:
        return tensors.quantize(x, fmt).dequantize() @ tensors.quantize(w, fmt).dequantize().T

    return product


EXPERIMENT = Experiment(
    number=10,
    name="l_mul",
    claim="Replacing a float multiply by one integer addition of the bit patterns and a constant is about as accurate as 8-bit float "
    "products inside a language model.",
    source="arXiv 2410.00907",
    checks=(
        Check("emulated products equal the equations evaluated in float64", "mismatches", "==", 0),
        Check(
            "3-bit L-Mul errs less than E5M2 operands multiplied exactly",
            "errors.m3.lmul_add.rms",
            "<",
            "errors.e5m2.exact.rms",
        ),
        Check(
            "4-bit L-Mul errs no more than a product rounded to E4M3",
            "errors.m4.lmul_add.rms",
            "<=",
            "errors.e4m3fn.rounded.rms",
        ),
        Check("the same with the bias removed", "errors.m4.corrected.rms", "<=", "errors.e4m3fn.rounded.rms"),
        Check("4-bit attention: perplexity rises by 1 % at most (anybit-tiny)", "tiny.attention4.plain", "<=", 0.01),
        Check("4-bit attention: perplexity rises by 1 % at most (stories260k)", "stories.attention4.plain", "<=", 0.01),
        Check("3-bit everywhere within 2 % of E4M3 (anybit-tiny)", "tiny.all3.plain", "<=", "tiny.e4m3", 0.02),
        Check(
            "3-bit everywhere, corrected, within 2 % of E4M3 (anybit-tiny)",
            "tiny.all3.corrected",
            "<=",
            "tiny.e4m3",
            0.02,
        ),
        Check(
            "3-bit everywhere, corrected, within 2 % of E4M3 (stories260k)",
            "stories.all3.corrected",
            "<=",
            "stories.e4m3",
            0.02,
        ),
        Check(
            "3-bit weights: corrected raises perplexity 0.6 times as much at most (anybit-tiny)",
            "tiny.linear3.ratio",
            "<=",
            0.6,
        ),
        Check(
            "3-bit everywhere: corrected raises it 0.6 times as much at most (anybit-tiny)",
            "tiny.all3.ratio",
            "<=",
            0.6,
        ),
        Check(
            "3-bit everywhere: corrected raises it 0.6 times as much at most (stories260k)",
            "stories.all3.ratio",
            "<=",
            0.6,
        ),
    ),
    run=run,
    key_figures={
        "rms error, 4 bits": "errors.m4.lmul_add.rms",
        "corrected": "errors.m4.corrected.rms",
        "E4M3": "errors.e4m3fn.rounded.rms",
        "perplexity rise, 3 bits everywhere": "tiny.all3.plain",
        "then corrected": "tiny.all3.corrected",
        "with E4M3": "tiny.e4m3",
    },
    notes="Rises are relative, without training. An emulation: on processors with multipliers L-Mul is slower than a product.",
)
