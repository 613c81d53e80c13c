"""Give Me FP32 or Give Me Death? (arXiv 2506.09501): greedy generations of two language models on simulated machines.

A machine is an `ops.simulated.Configuration`: batch, tensor-parallel ranks, splits of k, order of blocks, SIMD lanes of every linear
layer; the rest of the model runs in float32 in one order. The first one continues the prompts token by token; each of the twelve then reads
prompts and continuations in one pass. Up to the first position at which two of them choose another token (the divergence index) this
is what each would have written itself; beyond it nothing counts.
Arithmetics: "16 bits" (bfloat16 inputs, weights, partial sums, results and cache), LayerCast (weights of 16 bits, all else float32), and
the reduction tree, whose bits the configuration must not change (arXiv 2511.17826).

The certificate: with eps the largest difference of logits between configurations on the first half of the prompts, times 4, a token whose
two best logits are more than 2 eps apart is safe. Flips on the other half must all be among the unsafe ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anybit import models
from anybit.models import Model
from anybit.models.interpreter import Multiply, Setting
from anybit.models.interpreter import run as run_ops
from anybit.models.weights import Weights
from anybit.ops.invariant import TreeWeight
from anybit.ops.simulated import Arithmetic, Configuration, SimulatedWeight, simulated_linear
from anybit.reproduce.experiment import Check, Context, Experiment

CONFIGURATIONS = (
    Configuration(batch=64),
    Configuration(batch=8, lanes=16),
    Configuration(batch=32, ranks=2),
    Configuration(batch=16, ranks=4, lanes=16),
    Configuration(batch=4, ranks=8),
    Configuration(batch=32, splits=2, order="descending"),
    Configuration(batch=8, splits=4, lanes=16),
    Configuration(batch=64, ranks=2, splits=2, order="interleaved"),
    Configuration(batch=32, ranks=4, splits=2, lanes=16),
    Configuration(batch=8, order="descending", lanes=16),
    Configuration(batch=32, order="interleaved"),
    Configuration(batch=16, ranks=2, splits=3, order="descending"),
)
ARITHMETICS: Mapping[str, Arithmetic] = {"bf16": "16 bits", "layercast": "layercast", "tree": "invariant"}
PROMPT = 16


@dataclass(frozen=True)
class Sizes:
    """prompts and new tokens of a model."""

    prompts: int
    tokens: int


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick takes fewer and shorter generations."""
    tiny = models.load("anybit-tiny")
    stories = models.load(context.file("stories260k/config.json").parent)
    texts = {
        "tiny": (tiny, (tiny.path / "heldout.txt").read_text(encoding="utf-8")),
        "stories": (stories, context.file("text/tinystories_train_excerpt.txt").read_text(encoding="utf-8")),
    }
    sizes = (
        {"tiny": Sizes(12, 48), "stories": Sizes(24, 48)}
        if quick
        else {"tiny": Sizes(24, 48), "stories": Sizes(48, 96)}
    )
    found: dict[str, Any] = {"configurations": len(CONFIGURATIONS)}
    for name, (model, text) in texts.items():
        size = sizes[name]
        prompts = _prompts(model, text, size.prompts)
        found[name] = {
            "prompts": size.prompts,
            "tokens": size.tokens,
            **{
                label: _generations(context, f"{name}, {label}", model, arithmetic, prompts, size.tokens)
                for label, arithmetic in ARITHMETICS.items()
            },
            "layercast_error": _layercast_error(model, prompts),
        }
        std = {label: found[name][label]["std_top1"] for label in ARITHMETICS}
        found[name]["std_ratio"] = std["bf16"] / max(std["layercast"], 1e-12)
    return found


def _prompts(model: Model, text: str, count: int) -> Tensor:
    """[count, PROMPT] token ids cut from the text at even distances, each behind the begin token where the model has one."""
    ids, bos = model.tokenizer.encode(text), model.tokenizer.bos
    head = [] if bos is None else [bos]
    take = PROMPT - len(head)
    starts = [i * (len(ids) - take) // count for i in range(count)]
    return torch.tensor([head + list(ids[s : s + take]) for s in starts])


class _Batch:
    """Sequences of equal length in step: a cache [sequences, positions, heads, width] a layer, and a product for the linears."""

    def __init__(self, model: Model, weights: Weights, multiply: Multiply, dtype: torch.dtype) -> None:
        self.model, self.weights, self.multiply, self.dtype = model, weights, multiply, dtype
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.position = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `interpreter.Cache`, for all sequences at once."""
        new = keys.to(self.dtype), values.to(self.dtype)
        old = self.layers.get(layer)
        both = new if old is None else (torch.cat([old[0], new[0]], 1), torch.cat([old[1], new[1]], 1))
        self.layers[layer] = both
        return both[0].float(), both[1].float()

    @torch.no_grad()
    def forward(self, ids: Tensor, last_only: bool = False) -> Tensor:
        """Logits [sequences, tokens or 1, vocab] after ids [sequences, tokens]."""
        plan, setting = self.model.plan, Setting(multiply=self.multiply)
        out = run_ops(plan, self.weights, plan.ops, {"ids": ids}, setting, self.position, self, last_only)
        self.position += ids.shape[1]
        return out["logits"]


class _Values:
    """Weights read once."""

    def __init__(self, inner: Weights) -> None:
        self.inner, self.kept = inner, {}  # type: ignore[var-annotated]

    def resolve(self, ref: Any) -> Any:
        if ref not in self.kept:
            self.kept[ref] = self.inner.resolve(ref)
        return self.kept[ref]


def _linear(configuration: Configuration, arithmetic: Arithmetic, trees: dict[str, TreeWeight]) -> Multiply:
    """Linear layers as that configuration computes them, weights kept in its order; attention as it is."""
    ordered: dict[str, SimulatedWeight] = {}

    def product(site: str, x: Tensor, w: Tensor) -> Tensor:
        if site.startswith(("scores.", "mixing.")):
            return x @ w.T
        if arithmetic == "invariant":
            if site not in trees:
                trees[site] = TreeWeight.of(w.bfloat16())
            return simulated_linear(x, trees[site], configuration, arithmetic)
        if site not in ordered:
            ordered[site] = SimulatedWeight.of(w, configuration)
        return simulated_linear(x, ordered[site], configuration, arithmetic).float()

    return product


def _generations(
    context: Context, what: str, model: Model, arithmetic: Arithmetic, prompts: Tensor, tokens: int
) -> dict[str, float]:
    """Continue all prompts in the first configuration, then let every configuration read what it wrote."""
    trees: dict[str, TreeWeight] = {}
    weights = _Values(model.weights)
    dtype = torch.bfloat16 if arithmetic == "16 bits" else torch.float32

    def machine(configuration: Configuration) -> _Batch:
        return _Batch(model, weights, _linear(configuration, arithmetic, trees), dtype)

    writer, feed, written = machine(CONFIGURATIONS[0]), prompts, []
    for step in range(tokens):
        context.progress(f"{what}: writing", step, tokens)
        feed = writer.forward(feed, last_only=True)[:, -1:].argmax(-1)
        written.append(feed)
    text = torch.cat(written, 1)  # [prompts, tokens]
    given = torch.cat([prompts, text[:, :-1]], 1)

    first = torch.empty(0)
    chosen, probability, deviation, gap = [], [], torch.zeros(text.shape), torch.empty(0)
    other_bits = 0
    for number, configuration in enumerate(CONFIGURATIONS):
        context.progress(f"{what}: reading", number, len(CONFIGURATIONS))
        logits = machine(configuration).forward(given)[:, prompts.shape[1] - 1 :]  # [prompts, tokens, vocab]
        if number == 0:
            first, best = logits, logits.topk(2).values
            gap = best[..., 0] - best[..., 1]
        other_bits += int((logits != first).any(-1).sum())
        deviation = torch.maximum(deviation, (logits - first).abs().amax(-1))
        chosen.append(logits.argmax(-1))
        probability.append(torch.softmax(logits.double(), -1).gather(-1, text[..., None])[..., 0])
    flipped = (torch.stack(chosen) != chosen[0]).any(0)
    reached = (flipped.cumsum(1) == 0).double()  # positions before the divergence index
    index = reached.sum(1)
    spread = torch.stack(probability).std(0)
    # Flips count where a generation gets to them.
    live = torch.cat([torch.ones(len(text), 1), reached[:, :-1]], 1).bool()
    half = len(text) // 2
    eps = 4 * float(deviation[:half][live[:half]].max())
    safe, live, flipped = gap[half:] > 2 * eps, live[half:], flipped[half:]
    return {
        "diverging": float((index < tokens).double().mean()),
        "mean_index": float(index.mean()),
        "std_top1": float((spread * reached).sum() / reached.sum().clamp(min=1)),
        "logits_with_other_bits": other_bits,
        "largest_difference": float(deviation.max()),
        "eps": eps,
        "certified": float(safe[live].double().mean()),
        "certified_flips": int((flipped & safe & live).sum()),
    }


def _layercast_error(model: Model, prompts: Tensor) -> float:
    """Largest difference of LayerCast logits from those of float64 products of the same weights, over the largest logit."""
    weights = _Values(model.weights)

    def exact(site: str, x: Tensor, w: Tensor) -> Tensor:
        if site.startswith(("scores.", "mixing.")):
            return (x.double() @ w.double().T).float()
        return (x.double() @ w.bfloat16().double().T).float()

    cast = _linear(CONFIGURATIONS[0], "layercast", {})
    got, wanted = (_Batch(model, weights, product, torch.float32).forward(prompts) for product in (cast, exact))
    return float((got - wanted).abs().max() / wanted.abs().max())


def _checks(models_: Sequence[tuple[str, str]]) -> tuple[Check, ...]:
    checks: list[Check] = []
    for name, title in models_:
        checks += [
            Check(
                f"{title}: at least half of the generations diverge in bfloat16", f"{name}.bf16.diverging", ">=", 0.5
            ),
            Check(f"{title}: at most 5 % diverge with LayerCast", f"{name}.layercast.diverging", "<=", 0.05),
            Check(f"{title}: none diverges with the tree", f"{name}.tree.diverging", "==", 0),
            Check(f"{title}: no logit has other bits with the tree", f"{name}.tree.logits_with_other_bits", "==", 0),
            Check(f"{title}: LayerCast spreads top probabilities 1000 times less", f"{name}.std_ratio", ">=", 1000),
            Check(f"{title}: LayerCast logits equal float64 products", f"{name}.layercast_error", "<=", 5e-6),
            Check(f"{title}: no certified token of bfloat16 flips", f"{name}.bf16.certified_flips", "==", 0),
            Check(f"{title}: LayerCast certifies 95 % of tokens", f"{name}.layercast.certified", ">=", 0.95),
        ]
    return tuple(checks)


EXPERIMENT = Experiment(
    number=60,
    name="fp32_or_death",
    claim="Greedy decoding in 16 bits changes with batch size and kernel order, and keeping 16-bit storage with 32-bit computation removes "
    "nearly all of that divergence.",
    source="arXiv 2506.09501, NeurIPS 2025",
    checks=_checks((("tiny", "anybit-tiny"), ("stories", "stories260k"))),
    run=run,
    key_figures={
        "diverging, bfloat16": "tiny.bf16.diverging",
        "LayerCast": "tiny.layercast.diverging",
        "tree": "tiny.tree.diverging",
        "std of top probability, bfloat16": "tiny.bf16.std_top1",
        "then LayerCast": "tiny.layercast.std_top1",
    },
    notes="Twelve simulated configurations of the linear layers; norms and attention run in float32 in one order everywhere. "
    "Rows of a call do not meet in these sums: what a batch size changes on real machines, the split of k, is varied beside it.",
)
