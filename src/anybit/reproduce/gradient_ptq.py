"""Gradient-based post-training quantization (arXiv 2308.07662) in miniature: which choices matter when roundings are learned.

A small language model at 3 bits.  Starting from the recipe that the field calls usual (roundings alone, from the nearest code, Adam), one
choice at a time is changed: calibration text, its amount, loss, optimizer, what is learned, where it starts.  Importance-based mixed
precision is the exact allocation under a budget of as many bits (`allocate`), which stands for the paper's own rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject

FORMAT = "int3/g64:e4m3fn+t"
USUAL: dict[str, Any] = {"start": "rtn", "scales": False}
LENGTH = 128


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures, all on stories260k; quick learns for fewer steps and scores fewer tokens."""
    subject = Subject.open(context, "stories260k", 2000 if quick else 8000)
    # Roundings and scales go as far in few steps as in many.
    learning = {"steps": 40, "rate": 0.03, "scale_rate": 0.005} if quick else {"steps": 200}
    data: dict[str, dict[str, Any]] = {
        "usual": {},
        "fewer": {"samples": 16},
        "other_text": {"text": str(context.file("text/tinyshakespeare.txt"))},
    }
    choices: dict[str, dict[str, Any]] = {
        "l1": {**USUAL, "loss": "l1"},
        "sign": {**USUAL, "optimizer": "sign"},
        "sgd": {**USUAL, "optimizer": "sgd", "rate": 1.5 if quick else 0.3},
        "scales": {"start": "rtn"},
        "best": {},
    }
    figures: dict[str, Any] = {"perplexity": subject.perplexity()}
    plain: dict[str, dict[str, Any]] = {
        "rtn": {"weights": FORMAT, "method": "rtn"},
        "gptq": {"weights": FORMAT},
    }
    total, done = len(plain) + len(data) + len(choices) + 3, 0

    def tried(label: str, recipe: dict[str, Any], calibration: dict[str, Any]) -> None:
        nonlocal done
        context.progress("ways to learn roundings", done, total)
        given = {"length": LENGTH, "samples": 128, **calibration}
        figures[label] = subject.tried({**recipe, "calibration": given}, context.work)
        done += 1

    for label, recipe in plain.items():
        tried(label, recipe, {})
    for label, calibration in data.items():
        tried(label, _recipe({**learning, **USUAL}), calibration)
    for label, options in choices.items():
        tried(label, _recipe({**learning, **options}), {})
    tried("other_text_best", _recipe(learning), data["other_text"])
    tried("mixed", {"bits": figures["gptq"]["bits"]}, {})
    after = {"model_steps": 100, "model_rate": 0.024, "model_scale_rate": 0.008} if quick else {}
    tried("distilled", {**_recipe({**learning, **after}), "method": "distill"}, {})
    usual, rtn = figures["usual"]["kl"], figures["rtn"]["kl"]
    figures["moved_by_data"] = max(abs(figures[k]["kl"] / usual - 1) for k in ("fewer", "other_text"))
    figures["moved_by_choices"] = max(abs(figures[k]["kl"] / usual - 1) for k in choices)
    figures["usual_share"] = usual / rtn
    figures["best_share"] = figures["best"]["kl"] / usual
    return figures


def _recipe(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"weights": FORMAT, "method": "gradient_ptq", "options": dict(options)}


EXPERIMENT = Experiment(
    number=46,
    name="gradient_ptq",
    claim="Learned rounding depends little on calibration data and much on loss, freedom and optimiser; the best choices with "
    "importance-based mixed precision beat the usual recipe.",
    source="arXiv 2308.07662",
    checks=(
        Check("learned roundings diverge less than the nearest ones", "usual.kl", "<", "rtn.kl"),
        Check(
            "another calibration text or an eighth of it changes less than the other choices do",
            "moved_by_data",
            "<",
            "moved_by_choices",
        ),
        Check("the other choices change the divergence by a fifth or more", "moved_by_choices", ">=", 0.2),
        Check("scales learned too beat roundings alone", "scales.kl", "<", "usual.kl"),
        Check("the best choices beat the usual recipe", "best.kl", "<", "usual.kl"),
        Check("and GPTQ, which they start from", "best.kl", "<", "gptq.kl"),
        Check("mixed precision at as many bits beats uniform", "mixed.kl", "<", "gptq.kl"),
        Check(
            "beyond the paper: all blocks learned together diverge less than one by one", "distilled.kl", "<", "best.kl"
        ),
    ),
    run=run,
    key_figures={
        "KL at 3 bits, nearest": "rtn.kl",
        "usual recipe": "usual.kl",
        "best choices": "best.kl",
        "GPTQ": "gptq.kl",
        "distilled": "distilled.kl",
        "changed by data": "moved_by_data",
        "by other choices": "moved_by_choices",
    },
    notes="stories260k, KL divergence to the unquantized model in nats a token; everything stored counted alike. The paper measures image "
    "networks.",
)
