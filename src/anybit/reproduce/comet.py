"""COMET (arXiv 2410.12168): weights and activations of 4 bits, but for the few blocks of channels into which outliers are gathered.

Exactness: the product of both widths in one pass against int32, and sums that no order of channels changes.  Synthetic activations with
1 % of the channels 30 times larger: which share of the blocks needs 8 bits, and what is left of the other channels.  A language model with
outlier channels injected into its norms (the function unchanged): 4-bit weights with activations of 8 bits, of 4, and of 4 with the
gathered blocks at 8; and a 4-bit key-value cache on top.  The scheduler: makespans of the paper's example, and of random mixes of tiles
beside the bound.  Speed, one thread: the mixed product beside 8-bit activations and beside kernels of float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anybit import models, ops
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor
from anybit.models.evaluation import perplexity
from anybit.models.weights import Overlay
from anybit.ops.mixed import round_two_widths, two_width_matmul
from anybit.ops.partition import longest_first, longest_first_cut
from anybit.ops.reference import round_activations
from anybit.reproduce.clock import medians, one_thread
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import windows
from anybit.tensors import quantize

THRESHOLD = 6.0
"""Of the median channel, from which on a channel is an outlier."""
BLOCK = 32
"""Of the small model's channels; 128 of a large one's."""
KV = TensorFormat.parse("uint4/g32+z")


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick scores fewer tokens and times fewer rounds."""
    return {
        "exact": _exact(),
        "synthetic": _synthetic(),
        "model": _model(context, 1_500 if quick else 6_000),
        "schedule": _schedule(200),
        "speed": _speed(context, 7 if quick else 21),
    }


def outliers_first(largest: Tensor, block: int) -> tuple[Tensor, int]:
    """(order of the channels by falling magnitude, blocks in front that hold outliers) of the largest magnitudes [k] seen."""
    order = torch.argsort(largest, descending=True, stable=True)
    count = int((largest > THRESHOLD * largest.median()).sum())
    return order, -(-count // block)


def _exact() -> dict[str, int]:
    """Results of the mixed product that differ from int32 sums, and sums that an order of channels changes; all must be 0."""
    generator = torch.Generator().manual_seed(0)
    wrong = moved = 0
    for m, n, blocks, wide in ((1, 33, 4, 1), (7, 40, 5, 2), (20, 16, 3, 0), (3, 17, 2, 2)):
        k = 128 * blocks
        most = torch.where(torch.arange(k) < 128 * wide, 127, 7)
        x = (torch.rand(m, k, generator=generator) * (2 * most + 1)).floor() - most
        x[:, ::128] = most[::128].float()  # so that scales are 1
        w = torch.randint(-7, 8, (n, k), generator=generator).float()
        w[:, ::128] = 7
        packed = ops.prepack(quantize(w, TensorFormat.parse("int4n/g128")))
        true = x.int() @ w.int().T
        wrong += int((two_width_matmul(x, packed, TensorFormat.parse("int4n/g128"), wide) != true).sum())
        order = torch.randperm(k, generator=generator)
        moved += int((x[:, order].int() @ w[:, order].int().T != true).sum())
    return {"wrong": wrong, "moved": moved}


def _synthetic() -> dict[str, float]:
    """Normal activations [256, 4096] with 1 % of the channels 30 times larger: shares of 8-bit blocks, and dB of the other channels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4096, generator=generator)
    loud = torch.randperm(4096, generator=generator)[:41]
    x[:, loud] *= 30
    quiet = torch.ones(4096, dtype=torch.bool)
    quiet[loud] = False
    largest = x.abs().amax(0)
    order, wide = outliers_first(largest, 128)
    holds = (largest > THRESHOLD * largest.median()).reshape(-1, 128).any(1)
    four = TensorFormat.parse("int4n/g128")

    def noise(rounded: Tensor) -> float:
        error = (rounded - x)[:, quiet]
        return float(10 * torch.log10(x[:, quiet].square().sum() / error.square().sum()))

    mixed = torch.empty_like(x)
    mixed[:, order] = round_two_widths(x[:, order], four, wide)
    return {
        "share_before": float(holds.double().mean()),
        "share": wide / 32,
        "a4": noise(round_activations(x, four)),
        "mixed": noise(mixed),
    }


@dataclass(frozen=True)
class _Activations:
    """`interpreter.Multiply`: inputs of linear layers rounded to `bits` bits in blocks, those of a plan by its order; keys and values."""

    bits: int
    orders: Mapping[str, tuple[Tensor, int]]
    cache: bool = False

    def __call__(self, site: str, x: Tensor, w: Tensor) -> Tensor:
        if site.startswith(("scores", "mixing")):
            return x @ (_rounded_cache(site, w) if self.cache else w).T
        name = site.partition("[")[0]
        if self.bits == 0 or name not in self.orders:
            return x @ w.T
        order, wide = self.orders[name]
        rounded = torch.empty_like(x)
        rounded[:, order] = round_two_widths(x[:, order], TensorFormat.parse(f"int{self.bits}n/g{BLOCK}"), wide)
        return rounded @ w.T


def _rounded_cache(site: str, w: Tensor) -> Tensor:
    """Keys [positions, d] or values transposed [d, positions], each channel in groups of 32 positions whose range errs least."""
    channels = w.T if site.startswith("scores") else w
    rounded = quantize(channels.contiguous(), KV, "mse").dequantize()
    return rounded.T if site.startswith("scores") else rounded


def _model(context: Context, tokens: int) -> dict[str, float]:
    """Perplexities of anybit-tiny with outlier channels; rises over the 4-bit weights alone."""
    model = models.inject_outliers(models.load("anybit-tiny"), 0.01, 30.0, ("norm",), 0)
    names = [n for n in model.plan.weight_names() if ".layers." in n and len(model.weights.shape(n)) == 2]
    largest: dict[str, Tensor] = defaultdict(lambda: torch.zeros(1))

    def watch(site: str, x: Tensor, w: Tensor) -> Tensor:
        name = site.partition("[")[0]
        largest[name] = torch.maximum(largest[name], x.abs().amax(0))
        return x @ w.T

    perplexity(TorchExecutor(model.plan, model.weights, multiply=watch), windows(model, "calibration.txt")[:4])
    orders = {name: outliers_first(largest[name], BLOCK) for name in names}
    plain = {name: (order, 0) for name, (order, _) in orders.items()}
    unmoved = {name: (torch.arange(len(order)), 0) for name, (order, _) in orders.items()}

    def weights(of: Mapping[str, tuple[Tensor, int]]) -> Overlay:
        rounded = {}
        for name, (order, _) in of.items():
            stored = model.weights.get(name)
            assert isinstance(stored, Tensor)
            w = torch.empty(stored.shape)
            w[:, order] = quantize(stored.float()[:, order], TensorFormat.parse(f"int4/g{BLOCK}"), "mse").dequantize()
            rounded[name] = w
        return Overlay(model.weights, rounded)

    scored = windows(model, limit=tokens)
    moved, still = weights(orders), weights(unmoved)
    cases = {
        "w4": (still, _Activations(0, {})),
        "w4a8": (moved, _Activations(8, plain)),
        "w4a4": (still, _Activations(4, unmoved)),
        "mixed": (moved, _Activations(4, orders)),
        "mixed_kv4": (moved, _Activations(4, orders, cache=True)),
    }
    scores = {}
    for number, (case, (store, product)) in enumerate(cases.items()):
        context.progress("perplexity", number, len(cases))
        scores[case] = perplexity(TorchExecutor(model.plan, store, multiply=product), scored).perplexity
    blocks = sum(-(-len(order) // BLOCK) for order, _ in orders.values())
    return {
        **scores,
        "a4_over_a8": scores["w4a4"] / scores["w4a8"],
        "mixed_over_a8": scores["mixed"] / scores["w4a8"],
        "kv": scores["mixed_kv4"] / scores["mixed"] - 1,
        "share": sum(wide for _, wide in orders.values()) / blocks,
    }


def _schedule(mixes: int) -> dict[str, float]:
    """Makespans of 9 tiles of one unit and 9 of two on 4 workers, and the worst share of the bound over random mixes."""
    costs = [1.0, 2.0] * 9
    dealt = max(sum(costs[worker::4]) for worker in range(4))
    workers = longest_first(costs, 4)
    loads = [sum(c for c, w in zip(costs, workers, strict=True) if w == worker) for worker in range(4)]
    rng = np.random.default_rng(0)
    worst = 1.0
    for _ in range(mixes):
        mix = rng.choice([1.0, 2.0], int(rng.integers(8, 200))).tolist()
        count = int(rng.integers(2, 17))
        worst = min(worst, sum(mix) / count / _makespan(mix, 32, count))
    return {"dealt": dealt, "longest_first": max(loads), "cut": _makespan(costs, 32, 4), "worst": worst}


def _makespan(costs: list[float], steps: int, workers: int) -> float:
    load = [0.0] * workers
    for share in longest_first_cut(costs, steps, workers):
        load[share.worker] += costs[share.piece] * (share.end - share.begin) / steps
    return max(load)


def _speed(context: Context, rounds: int) -> dict[str, Any]:
    """Ratios of processor time with 16 rows and 4096 x 4096 weights of 4 bits."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(4096, 4096, generator=generator), torch.randn(16, 4096, generator=generator)
    packed = ops.prepack(quantize(weight, TensorFormat.parse("int4/g128")))
    four, eight = TensorFormat.parse("int4n/g128"), TensorFormat.parse("int8/g128")
    cases = {
        "mixed": partial(two_width_matmul, x, packed, four, 5),
        "w4a8": partial(ops.matmul, x, packed, act=eight),
        "exact": partial(ops.matmul, x, packed),
        "torch": partial(torch.nn.functional.linear, x, weight),
    }
    with one_thread():
        seconds = medians(cases, rounds, 256 << 20, "16 rows", context.progress)
    return {
        "us": {name: 1e6 * value for name, value in seconds.items()},
        "over_exact": seconds["exact"] / seconds["mixed"],
        "over_torch": seconds["torch"] / seconds["mixed"],
        "over_w4a8": seconds["w4a8"] / seconds["mixed"],
    }


EXPERIMENT = Experiment(
    number=2,
    name="comet",
    claim="Gathering outlier channels into a few int8 blocks lets all other activation blocks run at int4 with little loss, and balanced "
    "tile scheduling keeps the mixed kernel near int4 speed.",
    source="arXiv 2410.12168, ASPLOS 2025",
    checks=(
        Check("mixed product: results unlike int32 sums", "exact.wrong", "==", 0),
        Check("sums that an order of channels changes", "exact.moved", "==", 0),
        Check(
            "blocks that need 8 bits, 1 % of channels 30 times larger, unmoved: more than half",
            "synthetic.share_before",
            ">=",
            0.5,
        ),
        Check("gathered: at most 5 %", "synthetic.share", "<=", 0.05),
        Check("other channels: at least 12 dB above plain 4 bits", "synthetic.mixed", ">=", "synthetic.a4", 12.0),
        Check(
            "language model, all at 4 bits: perplexity 1.5 times that of 8-bit activations",
            "model.a4_over_a8",
            ">=",
            1.5,
        ),
        Check("gathered: at most 1.05 times", "model.mixed_over_a8", "<=", 1.05),
        Check("with at most 20 % of the blocks at 8 bits", "model.share", "<=", 0.2),
        Check("a 4-bit cache adds at most 1 %", "model.kv", "<=", 0.01),
        Check("the paper's 18 tiles on 4 workers, dealt in turn: 10 units", "schedule.dealt", "==", 10),
        Check("longest first: 7", "schedule.longest_first", "<=", 7),
        Check("with cuts: 6.75, the bound", "schedule.cut", "<=", 6.75),
        Check("random mixes: at least 95 % of the bound", "schedule.worst", ">=", 0.95),
        Check("M=16: 1.5 times as fast as weights dequantized to float32", "speed.over_exact", ">=", 1.5),
        Check("M=16: as fast as 8-bit activations (within 5 %)", "speed.over_w4a8", ">=", 0.95),
    ),
    run=run,
    key_figures={
        "8-bit blocks, gathered": "synthetic.share",
        "W4A4 over W4A8, perplexity": "model.a4_over_a8",
        "gathered over W4A8": "model.mixed_over_a8",
        "8-bit blocks of the model": "model.share",
        "4-bit cache adds": "model.kv",
        "over float32, M=16": "speed.over_exact",
    },
    notes="Blocks of 32 channels in the model, whose widths are 256 and 768. Processors multiply bytes, so 4-bit activations save nothing "
    "over 8-bit ones there: the product of both widths is one pass of the same kernel. Weights by searched scales, without training.",
)
