"""A language model to try quantizers on: its texts, what recipes make of it, and how far their predictions are from its own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from anybit import models, recipes
from anybit.models import Model, TorchExecutor
from anybit.models.evaluation import Executor, Remembering, cut, divergence, perplexity
from anybit.models.plan import Plan
from anybit.models.weights import Weights
from anybit.ops.static import activations
from anybit.recipes import calibration, journal
from anybit.recipes.recipe import Calibration
from anybit.reproduce.experiment import Context
from anybit.zoo import loading

WINDOW = 256
"""Tokens of a window, of calibration and of scoring."""


def windows(model: Model, file: str = "heldout.txt", limit: int | None = None) -> list[list[int]]:
    """Windows of a text that lies beside a bundled model: those to score, or of `calibration.txt`. limit: tokens, about."""
    text = (model.path / file).read_text(encoding="utf-8")
    return cut(model.tokenizer.encode(text), WINDOW, model.tokenizer.bos, limit)


class Subject:
    """A decoder with its calibration text and the windows it is scored on."""

    def __init__(self, folder: Path, calibration: Path, heldout: str, scored: int, samples: int = 64) -> None:
        """scored: tokens, about.  samples: calibration windows."""
        self.folder, self.calibration, self.samples = folder, calibration, samples
        self.model = models.load(folder)
        self.windows = cut(self.model.tokenizer.encode(heldout), WINDOW, self.model.tokenizer.bos, scored)
        self.reference = Remembering(TorchExecutor(self.model.plan, self.model.weights))

    @classmethod
    def open(cls, context: Context, name: str, scored: int, samples: int = 64) -> Subject:
        """stories260k (calibrated on the first half of its text, scored on the second) or a decoder of the zoo."""
        if name != "stories260k":
            folder = loading.folder(name)
            text = (folder / "heldout.txt").read_text(encoding="utf-8")
            return cls(folder, folder / "calibration.txt", text, scored, samples)
        text = context.file("text/tinystories_train_excerpt.txt").read_text(encoding="utf-8")
        middle = text.index("\n", len(text) // 2)
        calibration = context.work / "stories-calibration.txt"
        calibration.parent.mkdir(parents=True, exist_ok=True)
        calibration.write_text(text[:middle], encoding="utf-8")
        return cls(context.file("stories260k/config.json").parent, calibration, text[middle:], scored, samples)

    def quantized(self, recipe: Mapping[str, Any], work: Path) -> Model:
        """The model that a recipe makes, its calibration filled in; one made before in `work` is taken as it is."""
        given = {
            "text": str(self.calibration),
            "samples": self.samples,
            "length": WINDOW,
            **recipe.get("calibration", {}),
        }
        wanted = recipes.Recipe.parse({**recipe, "calibration": given})
        text = Path(given["text"]).read_text(encoding="utf-8")
        job = journal.fingerprint(self.folder, wanted.fingerprint(), text, None)
        key = hashlib.sha256(repr(job).encode()).hexdigest()[:20]
        out = work / f"{self.folder.name}-{key}"
        if not out.exists():
            recipes.run(self.folder, wanted, out)
        return models.load(out)

    def score(self, plan: Plan, weights: Weights, act: str | None = None) -> dict[str, float]:
        """As `judged`, of a model that the torch executor runs."""
        return self.judged(Remembering(TorchExecutor(plan, weights, act=activations(act) if act else None)))

    def judged(self, executor: Executor) -> dict[str, float]:
        """perplexity, kl (nats a token, to the unquantized model) and its stderr, agreement (share of equal first choices)."""
        far = divergence(executor, self.reference, self.windows)
        found = perplexity(executor, self.windows)
        return {
            "perplexity": found.perplexity,
            "kl": far.kl,
            "stderr": far.stderr,
            "agreement": far.agreement,
        }

    def calibration_windows(self) -> tuple[Tensor, ...]:
        """Token ids of the windows that recipes of `quantized` calibrate on."""
        how = Calibration(text=self.calibration, samples=self.samples, length=WINDOW)
        text = self.calibration.read_text(encoding="utf-8")
        return calibration.windows(self.model, text, how, self.calibration.name).ids

    def fingerprint(self) -> str:
        """sha256 of what a score depends on beside the quantization: weights, calibration text and windows."""
        digest = hashlib.sha256(_weights(self.folder))
        digest.update(self.calibration.read_bytes())
        digest.update(repr((self.samples, self.windows)).encode())
        return digest.hexdigest()

    def perplexity(self) -> float:
        """Of the model itself."""
        return perplexity(self.reference, self.windows).perplexity

    def tried(self, recipe: Mapping[str, Any], work: Path, act: str | None = None) -> dict[str, float]:
        """The score of what a recipe makes, with its bits a weight; nothing of it is kept."""
        made = self.quantized(recipe, work)
        found = {**self.score(made.plan, made.weights, act), "bits": made.bits_per_weight}
        shutil.rmtree(made.path)
        return found


def _weights(folder: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.digest()
