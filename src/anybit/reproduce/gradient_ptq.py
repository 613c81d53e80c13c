"""Gradient-based post-training quantization (arXiv 2308.07662) in miniature: which choices matter when roundings are learned.

A small language model at 3 bits.  Starting from the recipe that the field calls usual (roundings alone, from the nearest code, Adam), one
choice at a time is changed: calibration text, its amount, loss, optimizer, what is learned, where it starts.  Importance-based mixed
precision is the exact allocation under a budget of as many bits (`allocate`), which stands for the paper's own rule.

And a residual network for small images, as in the paper, at 3 and 2 bits: roundings learned layer by layer (AdaRound), on fewer images and
on photographs of other things; the whole network at once; scales too; another optimizer; and inputs of 4 bits, left out of the learning or
taken part in it (QDrop).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anybit.reproduce.classifier import Classifier
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.reproduce.subject import Subject

FORMAT = "int3/g64:e4m3fn+t"
USUAL: dict[str, Any] = {"start": "rtn", "scales": False}
LENGTH = 128
NETWORK = "resnet20"


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick makes fewer choices, learns for fewer steps and scores fewer tokens and images."""
    return {**_language(context, quick), "images": _images(context, quick)}


def _language(context: Context, quick: bool) -> dict[str, Any]:
    subject = Subject.open(context, "stories260k", 1500 if quick else 8000)
    # Roundings and scales go as far in few steps as in many.
    learning = {"steps": 30, "rate": 0.03, "scale_rate": 0.005} if quick else {"steps": 200}
    samples = 32 if quick else 128
    data: dict[str, dict[str, Any]] = {
        "usual": {},
        "fewer": {"samples": samples // 8},
        "other_text": {"text": str(context.file("text/tinyshakespeare.txt"))},
    }
    choices: dict[str, dict[str, Any]] = {
        "sgd": {**USUAL, "optimizer": "sgd", "rate": 1.5 if quick else 0.3},
        "scales": {"start": "rtn"},
        "best": {},
    }
    if not quick:
        choices |= {"l1": {**USUAL, "loss": "l1"}, "sign": {**USUAL, "optimizer": "sign"}}
    figures: dict[str, Any] = {"perplexity": subject.perplexity()}
    plain: dict[str, dict[str, Any]] = {
        "rtn": {"weights": FORMAT, "method": "rtn"},
        "gptq": {"weights": FORMAT},
    }
    total, done = len(plain) + len(data) + len(choices) + (3 if quick else 4), 0

    def tried(label: str, recipe: dict[str, Any], calibration: dict[str, Any]) -> None:
        nonlocal done
        context.progress("ways to learn roundings", done, total)
        given = {"length": LENGTH, "samples": samples, **calibration}
        figures[label] = subject.tried({**recipe, "calibration": given}, context.work)
        done += 1

    for label, recipe in plain.items():
        tried(label, recipe, {})
    for label, calibration in data.items():
        tried(label, _recipe({**learning, **USUAL}), calibration)
    for label, options in choices.items():
        tried(label, _recipe({**learning, **options}), {})
    if not quick:
        tried("other_text_best", _recipe(learning), data["other_text"])
    tried("mixed", {"bits": figures["gptq"]["bits"]}, {})
    tried("best_mixed", {"bits": figures["gptq"]["bits"], "method": "gradient_ptq", "options": learning}, {})
    after = {"model_steps": 60, "model_rate": 0.012, "model_scale_rate": 0.004} if quick else {}
    tried("distilled", {**_recipe({**learning, **after}), "method": "distill"}, {})
    usual, rtn = figures["usual"]["kl"], figures["rtn"]["kl"]
    figures["moved_by_data"] = max(abs(figures[k]["kl"] / usual - 1) for k in ("fewer", "other_text"))
    figures["moved_by_choices"] = max(abs(figures[k]["kl"] / usual - 1) for k in choices)
    figures["usual_share"] = usual / rtn
    figures["best_share"] = figures["best"]["kl"] / usual
    return figures


def _images(context: Context, quick: bool) -> dict[str, Any]:
    network = Classifier(context, NETWORK, 128 if quick else 1000)
    many, few, steps, input_steps = (32, 16, 10, 6) if quick else (1024, 64, 200, 200)
    shown = network.images(many)
    layers = {**USUAL, "unit": "layer", "variable": "relaxed", "rate": 0.03, "steps": 40 if quick else 1000}
    whole: dict[str, Any] = {"scales": False, "steps": steps}
    rows: dict[str, tuple[str, str, str, dict[str, Any], Tensor]] = {
        "three.nearest": ("int3/row", "int8/tensor", "rtn", {}, shown),
        "three.layers": ("int3/row", "int8/tensor", "gradient_ptq", layers, shown),
        "three.fewer": ("int3/row", "int8/tensor", "gradient_ptq", layers, shown[:few]),
        "three.other": ("int3/row", "int8/tensor", "gradient_ptq", layers, network.photographs(few)),
        "three.best": ("int3/row", "int8/tensor", "gradient_ptq", {"steps": steps}, shown),
        "two.nearest": ("int2/row", "int8/tensor", "rtn", {}, shown),
        "two.gptq": ("int2/row", "int8/tensor", "gptq", {}, shown),
        "two.layers": ("int2/row", "int8/tensor", "gradient_ptq", layers, shown),
        "two.whole": ("int2/row", "int8/tensor", "gradient_ptq", whole, shown),
        "two.sgd": ("int2/row", "int8/tensor", "gradient_ptq", {**whole, "optimizer": "sgd", "rate": 0.3}, shown),
        "two.best": ("int2/row", "int8/tensor", "gradient_ptq", {"steps": steps}, shown),
        "inputs.exact": ("int4/row", "int4/tensor", "gradient_ptq", {"steps": input_steps}, shown),
        "inputs.rounded": (
            "int4/row",
            "int4/tensor",
            "gradient_ptq",
            {"steps": input_steps, "act": "int4/tensor"},
            shown,
        ),
    }
    figures: dict[str, Any] = {"accuracy": network.accuracy()}
    for done, (label, (weights, act, method, options, calibration)) in enumerate(rows.items()):
        context.progress(f"{NETWORK} with learned roundings", done, len(rows))
        group, name = label.split(".")
        figures.setdefault(group, {})[name] = network.tried(weights, act, method, options, calibration)
    three, two = figures["three"], figures["two"]
    usual = three["layers"]["accuracy"]
    figures["won"] = usual - three["nearest"]["accuracy"]
    figures["moved_by_number"] = abs(three["fewer"]["accuracy"] - usual)
    figures["moved_by_kind"] = abs(three["other"]["accuracy"] - three["fewer"]["accuracy"])
    figures["moved_by_choices"] = max(abs(two[k]["accuracy"] - two["layers"]["accuracy"]) for k in ("sgd", "best"))
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
        Check(
            "the best choices with mixed precision at as many bits beat the usual recipe",
            "best_mixed.kl",
            "<",
            "usual.kl",
        ),
        Check("and each alone GPTQ: the best choices", "best.kl", "<", "gptq.kl"),
        Check("mixed precision", "mixed.kl", "<", "gptq.kl"),
        Check(
            "beyond the paper: all blocks learned together diverge less than one by one", "distilled.kl", "<", "best.kl"
        ),
        Check(
            f"{NETWORK}, 3 bits: roundings learned layer by layer are a point more often right", "images.won", ">=", 1
        ),
        Check("fewer images to learn from change that by half a point at most", "images.moved_by_number", "<=", 0.5),
        Check("photographs of other things by a point at most", "images.moved_by_kind", "<=", 1),
        Check("2 bits: all layers learned together diverge less", "images.two.whole.kl", "<", "images.two.layers.kl"),
        Check("with their scales still less", "images.two.best.kl", "<", "images.two.whole.kl"),
        Check("optimizer and freedom change what is right by 2 points or more", "images.moved_by_choices", ">=", 2),
        Check("the best choices beat layer by layer at 3 bits", "images.three.best.kl", "<", "images.three.layers.kl"),
        Check("and at 2 bits", "images.two.best.kl", "<", "images.two.layers.kl"),
        Check(
            "inputs of 4 bits: learned with them diverges less than without",
            "images.inputs.rounded.kl",
            "<",
            "images.inputs.exact.kl",
        ),
    ),
    run=run,
    key_figures={
        "KL at 3 bits, nearest": "rtn.kl",
        "usual recipe": "usual.kl",
        "best choices": "best.kl",
        "and mixed precision": "best_mixed.kl",
        "GPTQ": "gptq.kl",
        "distilled": "distilled.kl",
        "changed by data": "moved_by_data",
        "by other choices": "moved_by_choices",
        f"{NETWORK}, % right": "images.accuracy",
        "at 2 bits, nearest": "images.two.nearest.accuracy",
        "layer by layer": "images.two.layers.accuracy",
        "best": "images.two.best.accuracy",
    },
    notes=f"stories260k, KL divergence to the unquantized model in nats a token, everything stored counted alike; {NETWORK} on CIFAR-10, "
    "weights with a scale a row, first and last layer at 8 bits, inputs at 8 bits where nothing else is said.",
)
