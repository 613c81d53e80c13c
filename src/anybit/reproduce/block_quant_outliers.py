"""Block quantization with outliers (arXiv 2403.20137) in miniature: sorted key channels for caches in block floating point.

One synthetic head of 128 channels, six of them 8 times larger, and `anybit-tiny` (heads of 32) with key outliers put in and without.
Keys in BFP12 (4-bit mantissas), queries in BFP16 (8 bits): as the channels stand, sorted as pairs under RoPE (free at run time), and sorted
one by one behind RoPE.  A language model with heads of 128 channels is not here: the paper's blocks of 32 and 64 correspond to 8 and 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor, inject_outliers, online
from anybit.models.evaluation import Remembering, divergence, perplexity
from anybit.models.rewriting import Rewrite
from anybit.recipes.keys import sorted_keys
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject
from anybit.tensors import quantize
from anybit.transforms.key_order import Options, sorted_channels
from anybit.transforms.order import descending

CHANNELS, POSITIONS = 128, 256
BLOCKS = (16, 32, 64, 128)


def bfp(bits: int, block: int) -> TensorFormat:
    """Block floating point with mantissas of so many bits."""
    return TensorFormat.parse(f"int{bits}/g{block}:e8m0")


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores fewer tokens."""
    figures: dict[str, Any] = {"plain_head": _head(False), "rope_head": _head(True)}
    subject = Subject.open(context, "anybit-tiny", 1500 if quick else 8000)
    outlying = inject_outliers(subject.model, 0.25, 16.0, ("qk",), seed=1)
    for label, model in (("clean", subject.model), ("outliers", outlying)):
        context.progress(f"anybit-tiny, {label}", int(label != "clean"), 2)
        figures[label] = _model(subject, model)
    figures["bytes"] = _bytes(subject)
    return figures


def _head(rope: bool) -> dict[str, dict[str, float]]:
    """Relative errors of scores by the size of blocks; order -> "b16" and so on.  Channels weigh alike in scores."""
    g = torch.Generator().manual_seed(0)
    size = torch.randn(CHANNELS, generator=g).mul(0.5).exp()
    size[torch.randperm(CHANNELS, generator=g)[:6]] *= 8
    k, q = (torch.randn(POSITIONS, CHANNELS, generator=g) for _ in range(2))
    k = k * size
    q = q / size
    half = CHANNELS // 2
    pairs = descending((size[:half].square() + size[half:].square()).sqrt())
    channels = torch.cat([pairs, pairs + half]) if rope else descending(size)
    angle = 10000.0 ** (-torch.arange(half) / half)

    def turned(x: Tensor, order: Tensor) -> Tensor:
        if not rope:
            return x
        turn = torch.arange(POSITIONS)[:, None] * angle[order]
        a, b = x[:, :half], x[:, half:]
        return torch.cat([a * turn.cos() - b * turn.sin(), b * turn.cos() + a * turn.sin()], 1)

    plain = torch.arange(half)
    ordered = {
        "plain": (turned(q, plain), turned(k, plain)),
        "sorted": (turned(q[:, channels], pairs), turned(k[:, channels], pairs)),
    }
    if rope:
        after = sorted_channels((size[:half].square() + size[half:].square()).sqrt(), torch.zeros(0))
        ordered["after"] = ordered["plain"][0][:, after], ordered["plain"][1][:, after]
    wanted = ordered["plain"][0].double() @ ordered["plain"][1].double().T
    found: dict[str, dict[str, float]] = {}
    for label, (queries, keys) in ordered.items():
        found[label] = {}
        for block in BLOCKS:
            got = quantize(queries, bfp(8, block)).dequantize() @ quantize(keys, bfp(4, block)).dequantize().T
            found[label][f"b{block}"] = float((got - wanted).norm() / wanted.norm())
    found["share"] = {f"b{b}": found["sorted"][f"b{b}"] / found["plain"][f"b{b}"] for b in BLOCKS}
    queries, keys = ordered["plain"]
    wide = quantize(queries, bfp(8, 32)).dequantize() @ quantize(keys, bfp(8, 32)).dequantize().T
    found["bfp16"] = {"b32": float((wide - wanted).norm() / wanted.norm())}
    return found


def _in_order(model: Model, options: Options | None) -> Model:
    if options is None:
        return model
    rewrite = Rewrite(model.weights)
    left = sorted_keys(model, rewrite, options)
    return replace(model, weights=rewrite.store(), plan=online.insert(model.plan, left))


def _model(subject: Subject, model: Model) -> dict[str, Any]:
    """Perplexities in percent above that of exact keys, and KL divergences, by order and block."""
    exact = perplexity(subject.reference, subject.windows).perplexity
    found: dict[str, Any] = {"perplexity": exact}
    orders = {"plain": None, "pairs": Options(), "after": Options(mode="after")}
    for label, options in orders.items():
        made = _in_order(model, options)
        for block in (8, 16, 32):
            executor = Remembering(TorchExecutor(made.plan, made.weights, keys=bfp(4, block), queries=bfp(8, block)))
            found.setdefault(label, {})[f"b{block}"] = {
                "more": 100 * (perplexity(executor, subject.windows).perplexity / exact - 1),
                "kl": divergence(executor, subject.reference, subject.windows).kl,
            }
    made = _in_order(model, None)
    wide = Remembering(TorchExecutor(made.plan, made.weights, keys=bfp(8, 32), queries=bfp(8, 32)))
    found["bfp16"] = 100 * (perplexity(wide, subject.windows).perplexity / exact - 1)
    for label in ("pairs", "after"):
        shares = (found[label][f"b{b}"]["kl"] / found["plain"][f"b{b}"]["kl"] for b in (8, 16))
        found[label]["share8"], found[label]["share16"] = shares
        found[label]["rise_share8"] = found[label]["b8"]["more"] / found["plain"]["b8"]["more"]
    return found


def _bytes(subject: Subject) -> dict[str, float]:
    """Of the keys of 64 positions in blocks of 32, against BFP16 and against 16-bit floats."""
    sizes = []
    for bits in (4, 8):
        executor = TorchExecutor(subject.model.plan, subject.model.weights, keys=bfp(bits, 32))
        executor.forward(subject.windows[0][:64])
        sizes.append(executor.cache_bytes[0])
    plan = subject.model.plan
    halves = 2 * 64 * plan.layers * plan.kv_heads * plan.head_dim
    return {"of_bfp16": sizes[0] / sizes[1], "of_fp16": sizes[0] / halves, "expected": 4.25 / 8.25}


EXPERIMENT = Experiment(
    number=32,
    name="block_quant_outliers",
    claim="Reordering key channels so that outliers share blocks makes block floating point caches accurate at no run-time cost.",
    source="arXiv 2403.20137",
    checks=(
        Check("a head without RoPE, blocks of 32: 0.6 of the error or less", "plain_head.share.b32", "<=", 0.6),
        Check("the gain grows as blocks shrink", "plain_head.share.b16", "<", "plain_head.share.b64"),
        Check("a block as wide as the head gains nothing", "plain_head.share.b128", ">=", 0.999),
        Check("under RoPE, pairs sorted as pairs gain too", "rope_head.share.b32", "<=", 0.8),
        Check("and more the smaller the blocks", "rope_head.share.b16", "<", "rope_head.share.b32"),
        Check("but not where a block is the whole head", "rope_head.share.b128", ">=", 0.999),
        Check("keys in BFP16 as they stand: 5 % of error at most", "rope_head.bfp16.b32", "<=", 0.05),
        Check("keys take 4.25 of 8.25 bits", "bytes.of_bfp16", "<=", "bytes.expected", 1e-6),
        Check("and 0.27 of 16-bit floats at most", "bytes.of_fp16", "<=", 0.27),
        Check("anybit-tiny: sorted keys in BFP12 cost 1 % of perplexity at most", "clean.pairs.b8.more", "<=", 1.0),
        Check("with outliers, blocks of 8: divergence falls by 40 % or more", "outliers.pairs.share8", "<=", 0.6),
        Check("and the rise of perplexity too", "outliers.pairs.rise_share8", "<=", 0.6),
        Check("with outliers, blocks of 16 sorted behind RoPE: by 40 % or more", "outliers.after.share16", "<=", 0.6),
    ),
    run=run,
    key_figures={
        "error of a head, blocks of 32": "rope_head.plain.b32",
        "sorted pairs": "rope_head.sorted.b32",
        "% perplexity with outliers, blocks of 8": "outliers.plain.b8.more",
        "sorted": "outliers.pairs.b8.more",
        "without outliers, sorted": "clean.pairs.b8.more",
        "bytes of a BFP16 cache": "bytes.of_bfp16",
    },
    notes="Outliers: a quarter of the pairs of every head 16 times larger in keys and smaller in queries. The function of the model does "
    "not change under any of the orders.",
)
