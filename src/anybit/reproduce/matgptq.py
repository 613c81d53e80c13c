"""MatGPTQ (arXiv 2602.03537) in miniature: one 8-bit checkpoint of a language model, served at 2, 3, 4, 6 and 8 bits by its top bits.

"Alone" is GPTQ for that width.  "Sliced" cuts plain 8-bit GPTQ codes.  The method is run for the paper's target widths with its equal
weights and plain mean (as published), and as it is here: searched scales, and weights that favour wide slices, carried on in the same
proportion.  All have one scale for 64 weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from anybit.models.slices import at_bits
from anybit.quantize.matgptq import Envelope, slice_codes
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject

WIDTHS = (2, 3, 4, 6, 8)
BLOCK = "g64:e4m3fn+t"
MASTERS: dict[str, dict[str, Any]] = {
    "sliced": {"method": "gptq", "options": {"scale_rule": "absmax"}},
    "paper348": {"method": "matgptq", "options": {"bits": "3,4,8", "weighted": False, "search": False}},
    "paper248": {"method": "matgptq", "options": {"bits": "2,4,8", "weighted": False, "search": False}},
    "ours": {"method": "matgptq", "options": {"bits": "2,3,4,8", "weights": "0.01,0.1,0.3,1"}},
}


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick takes stories260k alone."""
    figures: dict[str, Any] = {"envelope": _envelope(20_000 if quick else 200_000)}
    for name in ("stories260k",) if quick else ("stories260k", "anybit-tiny"):
        figures[name.split("-")[-1]] = _model(context, Subject.open(context, name, 2000 if quick else 6000))
    return figures


def _envelope(count: int) -> dict[str, int]:
    """Weights whose code is not of least error among all 256, and codes whose slice is not that of the paper's formula: must be none."""
    codes = torch.arange(-128, 128)
    wrong = 0
    for bits, weights in (((3, 4, 8), (1.0, 1.0, 1.0)), ((2, 4, 8), (0.3, 0.5, 1.0)), ((2, 3, 4, 6, 8), (1.0,) * 5)):
        u = torch.randn(count, generator=torch.Generator().manual_seed(len(bits)), dtype=torch.float64) * 50
        cost = torch.zeros(256, count, dtype=torch.float64)
        for b, weight in zip(bits, weights, strict=True):
            cost += weight * (u[None] - slice_codes(codes, b).double()[:, None] * 2.0 ** (8 - b)).square()
        got = Envelope(list(zip(bits, weights, strict=True)), True, torch.float64).codes(u) + 128
        wrong += int((cost[got, torch.arange(count)] > cost.amin(0) * (1 + 1e-9) + 1e-9).sum())
    slices = 0
    for b in range(1, 8):
        q = codes + 128
        wanted = ((q >> (8 - b)) + ((q >> (7 - b)) & 1)).clamp(max=2**b - 1) - 2 ** (b - 1)
        slices += int((slice_codes(codes, b) != wanted).sum())
    return {"codes": wrong, "slices": slices}


def _model(context: Context, subject: Subject) -> dict[str, Any]:
    figures: dict[str, Any] = {"perplexity": subject.perplexity()}
    done, total = 0, len(WIDTHS) * (1 + len(MASTERS))

    def told() -> None:
        nonlocal done
        done += 1
        context.progress(f"{subject.folder.name} at every width", done, total)

    alone = {}
    for width in WIDTHS:
        alone[f"at{width}"] = subject.tried({"weights": f"int{width}/{BLOCK}"}, context.work)
        told()
    figures["alone"] = alone
    for label, recipe in MASTERS.items():
        master = subject.quantized({"weights": f"int8/{BLOCK}", **recipe}, context.work)
        figures[label] = {}
        for width in WIDTHS:
            served = at_bits(master, width)
            figures[label][f"at{width}"] = subject.score(served.plan, served.weights)
            told()
    for label in MASTERS:
        for width in WIDTHS:
            figures[label][f"at{width}"]["behind"] = (
                figures[label][f"at{width}"]["perplexity"] / alone[f"at{width}"]["perplexity"] - 1
            )
        figures[label]["rise8"] = figures[label]["at8"]["perplexity"] / figures["perplexity"] - 1
    return figures


EXPERIMENT = Experiment(
    number=28,
    name="matgptq",
    claim="One post-training pass makes an 8-bit checkpoint whose top 6, 4, 3 or 2 bits are each nearly as good as a model quantized for "
    "that width alone.",
    source="arXiv 2602.03537",
    checks=(
        Check("the code of every weight is of least error among all 256", "envelope.codes", "==", 0),
        Check("slices are those of the published formula", "envelope.slices", "==", 0),
        Check(
            "3 bits: better than plain codes sliced", "stories260k.paper348.at3.kl", "<", "stories260k.sliced.at3.kl"
        ),
        Check(
            "4 bits: better than plain codes sliced", "stories260k.paper348.at4.kl", "<", "stories260k.sliced.at4.kl"
        ),
        Check(
            "2 bits, as a target: better than plain codes sliced",
            "stories260k.paper248.at2.kl",
            "<",
            "stories260k.sliced.at2.kl",
        ),
        Check(
            "8 bits: no worse than 4 bits quantized alone",
            "stories260k.paper348.at8.perplexity",
            "<=",
            "stories260k.alone.at4.perplexity",
        ),
        Check("3 bits: perplexity within 10 % of 3 bits alone", "stories260k.paper348.at3.behind", "<=", 0.1),
        Check("4 bits: perplexity within 5 % of 4 bits alone", "stories260k.paper348.at4.behind", "<=", 0.05),
        Check("6 bits: perplexity within 5 % of 6 bits alone", "stories260k.paper348.at6.behind", "<=", 0.05),
        Check("2 bits: perplexity within 10 % of 2 bits alone", "stories260k.paper248.at2.behind", "<=", 0.1),
        Check("ours: 8 bits cost half a per cent at most", "stories260k.ours.rise8", "<=", 0.005),
        Check("ours: 4 bits: better than as published", "stories260k.ours.at4.kl", "<", "stories260k.paper348.at4.kl"),
        Check("ours: 3 bits are still better than sliced", "stories260k.ours.at3.kl", "<", "stories260k.sliced.at3.kl"),
    ),
    run=run,
    key_figures={
        "KL at 3 bits": "stories260k.paper348.at3.kl",
        "plain codes sliced": "stories260k.sliced.at3.kl",
        "3 bits alone": "stories260k.alone.at3.kl",
        "at 8 bits": "stories260k.paper348.at8.kl",
        "ours, 3 bits": "stories260k.ours.at3.kl",
        "ours, 8 bits": "stories260k.ours.at8.kl",
    },
    notes="KL divergence to the unquantized model in nats a token. The slice at 8 bits pays for the low ones where all widths weigh alike.",
)
