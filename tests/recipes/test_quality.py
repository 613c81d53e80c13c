"""Perplexity of a real pretrained model after quantization; calibrated on one part of a text, scored on another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anybit import models, recipes
from anybit.models.evaluation import cut, perplexity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

Measure = Callable[..., tuple[float, float]]


@pytest.fixture(scope="module")
def measure(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """recipe fields -> (bits a weight, perplexity)."""
    work = tmp_path_factory.mktemp("quality")
    source = shared_data / "stories260k"
    text = (shared_data / "text" / "tinystories_train_excerpt.txt").read_text(encoding="utf-8")
    half = text.index("\n", len(text) * 6 // 10)
    calibration = work / "calibration.txt"
    calibration.write_text(text[:half], encoding="utf-8")
    original = models.load(source)
    windows = cut(original.tokenizer.encode(text[half:]), 256, original.tokenizer.bos, limit=16000)
    known: dict[str, tuple[float, float]] = {}

    def run(**fields: object) -> tuple[float, float]:
        key = repr(sorted(fields.items()))
        if key not in known:
            folder = source
            if fields:
                folder = work / f"m{len(known)}"
                data = {"calibration": {"text": str(calibration), "samples": 64, "length": 256}, **fields}
                recipes.run(source, recipes.Recipe.parse(data), folder)
            made = models.load(folder)
            score = perplexity(models.TorchExecutor(made.plan, made.weights), windows)
            known[key] = (made.bits_per_weight, score.perplexity)
        return known[key]

    return run


def test_eight_bits_lose_next_to_nothing(measure: Measure) -> None:
    _, original = measure()
    for method in ("rtn", "gptq"):
        assert abs(measure(weights="int8/g64", method=method)[1] / original - 1) < 0.003


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_gptq_beats_rounding(bits: int, measure: Measure) -> None:
    scores = [measure(weights=f"int{bits}/g64", embeddings="int8/row", method=method)[1] for method in ("rtn", "gptq")]
    assert scores[1] < scores[0]


@pytest.mark.parametrize(("share", "allowed"), [(0.25, 0.25), (0.5, 0.25), (0.75, 0.75)])
def test_a_budget_beats_the_line_between_uniform_formats(share: float, allowed: float, measure: Measure) -> None:
    """A budget that lies `share` of the way from uniform 4 to uniform 3 bits, everything counted, loses at most `allowed` of the
    way between their perplexities.
    """
    (b4, p4), (b3, p3) = (measure(weights=f"int{b}/g64", embeddings=f"int{b}/g64") for b in (4, 3))
    bits = b4 + (b3 - b4) * share
    spent, mixed = measure(bits=bits, choices=[f"int{b}/g64" for b in (2, 3, 4, 5, 6, 8)])
    assert spent <= bits
    assert mixed <= p4 + (p3 - p4) * allowed
