"""Make every version, score it, time all of them in turns, and let the best of few bits write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anybit.cli import engines, numbers, scoring
from anybit.cli.bench.model import Measured, Ours, measure
from anybit.cli.demo.versions import FEW_BITS, Version
from anybit.cli.machine import machine
from anybit.cli.report import LayerBits, Report, Variant

if TYPE_CHECKING:
    from anybit.models import Model

Progress = Callable[[str, float, float], None]

STAGES = {"original": 0.0, "rtn": 1.0, "gptq": 15.0, "mixed": 65.0, "score": 3.0, "speed": 20.0}
"""About how long the stages take compared with one another, for the time left."""


@dataclass(frozen=True)
class Settings:
    """How much is measured. samples, length: calibration; tokens: scored, None for the whole text; prompt and writing lengths of the
    speed measurement, and its rounds; story: tokens to write."""

    samples: int = 64
    length: int = 256
    tokens: int | None = None
    prefill: int = 256
    decode: int = 128
    rounds: int = 5
    story: int = 220


QUICK_SETTINGS = Settings(samples=16, length=256, tokens=4096, prefill=128, decode=32, rounds=3, story=120)
STORY_SEED = 0
PROMPT = "Once upon a time there was a little"


@dataclass(frozen=True)
class Texts:
    """name, scored: the text to score; calibration: the file to calibrate with, None for the model's own."""

    name: str
    scored: str
    calibration: Path | None = None


class Steps:
    """Progress over stages of unequal length."""

    def __init__(self, versions: Sequence[Version], progress: Progress) -> None:
        self.total = sum(STAGES[v.method] + STAGES["score"] for v in versions) + STAGES["speed"]
        self.done = 0.0
        self._progress = progress

    def stage(self, what: str, share: float) -> Progress:
        """The progress function of a stage that is `share` of the whole."""
        before = self.done
        self.done += share

        def told(detail: str, done: float, total: float) -> None:
            self._progress(what, before + share * (done / total if total else 0.0), self.total)

        told("", 0.0, 1.0)
        return told


def layers(model: Model) -> tuple[LayerBits, ...]:
    """How every weight matrix of a quantized model is stored."""
    from anybit.formats import TensorFormat

    found = []
    for name in model.plan.weight_names():
        shape, stored = model.weights.shape(name), model.weights.dtype(name)
        if len(shape) < 2:
            continue
        parameters = shape[0] * shape[1]
        spec = str(stored) if isinstance(stored, TensorFormat) else str(stored).removeprefix("torch.")
        found.append(LayerBits(name, spec, 8 * model.weights.nbytes(name) / parameters, parameters))
    return tuple(found)


def stored_as(model: Model) -> str:
    """The short name of the type that most of a model's matrices are stored in."""
    counts = Counter(layer.spec for layer in layers(model))
    most = max(counts, key=lambda spec: counts[spec])
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(most, most)


def best(variants: Sequence[Variant]) -> Variant:
    """The version of fewer than 4 bits a weight that predicts best; of all quantized ones where none has so few."""
    quantized = [variant for variant in variants if variant.method != "original"]
    few = [variant for variant in quantized if variant.bits_per_weight < FEW_BITS]
    return min(few or quantized, key=lambda variant: variant.perplexity)


def run(
    source: Path, texts: Texts, work: Path, versions: Sequence[Version], settings: Settings, progress: Progress
) -> Report:
    """Everything; quantized versions are left in `work`. Errors are those of the floors below."""
    from anybit import models, recipes
    from anybit.runtime.generate import generate
    from anybit.runtime.sampling import suggested

    started = time.perf_counter()
    steps = Steps(versions, progress)
    calibration: dict[str, Any] = {"samples": settings.samples, "length": settings.length}
    if texts.calibration is not None:
        calibration["text"] = str(texts.calibration)
    loaded: dict[str, Model] = {}
    versions = [replace(v, name=stored_as(models.load(source))) if v.recipe is None else v for v in versions]
    for version in versions:
        folder = source
        if version.recipe is not None:
            folder = work / version.folder
            recipe = recipes.Recipe.parse({**version.recipe, "calibration": calibration}, source=version.name)
            told = steps.stage(f"quantizing, {version.name}", STAGES[version.method])
            recipes.run(
                source, recipe, folder, overwrite=True, progress=lambda share, what, told=told: told(what, share, 1.0)
            )
        loaded[version.name] = models.load(folder)
    reference = loaded[versions[0].name]
    cut = scoring.windows(reference, texts.scored, tokens=settings.tokens)
    executors: dict[str, Any] = {}
    scores = {}
    for version in versions:
        executors[version.name] = engines.build(loaded[version.name])
        told = steps.stage(f"scoring, {version.name}", STAGES["score"])
        scores[version.name] = scoring.score(executors[version.name], cut, told)
    vocabulary = reference.plan.vocab_size
    told = steps.stage("measuring speed", STAGES["speed"])
    subjects = {
        name: Ours(executor, vocabulary, settings.prefill, settings.decode) for name, executor in executors.items()
    }
    speeds = {one.name: one for one in measure(subjects, settings.rounds, progress=told)}
    variants = tuple(
        variant(version, loaded[version.name], scores[version.name].perplexity, speeds[version.name])
        for version in versions
    )
    chosen = best(variants)
    model = loaded[chosen.name]
    made = generate(
        executors[chosen.name],
        model.tokenizer,
        engines.prompt_ids(model, PROMPT),
        max_new_tokens=settings.story,
        sampling=replace(suggested(source), seed=STORY_SEED),
        stop_ids=model.tokenizer.eos,
    )
    tokens = scores[versions[0].name].tokens
    threads = {executor.threads for executor in executors.values()}
    facts = describe(reference, texts.name, tokens, settings, threads, time.perf_counter() - started)
    return Report(source.name, variants, chosen.name, PROMPT, made.text, facts)


def variant(version: Version, model: Model, perplexity: float, speed: Measured) -> Variant:
    """A version with what was measured of it."""
    where = layers(model) if version.recipe is not None else ()
    return Variant(
        version.name,
        version.method,
        perplexity,
        model.nbytes,
        model.bits_per_weight,
        speed.prefill.median,
        speed.decode.median,
        where,
    )


def describe(
    model: Model, text: str, tokens: int, settings: Settings, threads: set[int], seconds: float
) -> Mapping[str, str]:
    """How the figures came about, for the reader of the page. threads: that versions ran with."""
    found = machine()
    config = model.config
    return {
        "model": f"{model.path.name}: {config.get('architectures', ['?'])[0]}, {model.parameters:,} parameters, "
        f"{model.plan.layers} blocks",
        "perplexity": f"of {tokens:,} tokens of {text}, which the model was not trained on, in windows of "
        f"{min(model.plan.max_positions, scoring.LONGEST_WINDOW)} tokens",
        "calibration": f"at most {settings.samples} windows of {settings.length} tokens of the model's calibration text",
        "bits a weight": "eight times all stored bytes over the number of parameters: codes, scales, padding, norms, embedding",
        "activations": f"{engines.DEFAULT_ACTIVATION} in quantized layers, exact in the bf16 version; KV cache fp16",
        "speed": f"prompt of {settings.prefill} tokens, then {settings.decode} written, {numbers.either(threads, 'thread')}, medians of "
        f"{settings.rounds} interleaved rounds",
        "machine": f"{found.processor}, {found.cores} cores, {', '.join(found.simd) or 'no SIMD known'}, {numbers.size(found.memory)}",
        "whole run": numbers.seconds(seconds),
    }
