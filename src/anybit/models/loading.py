"""`load`: a Hugging Face directory, or the name of a bundled model, as a `Model` ready to be run or quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from anybit.errors import CheckpointError, UnsupportedModelError
from anybit.models import static
from anybit.models.checkpoint import verify as check_sums
from anybit.models.config import read_json
from anybit.models.families import lower
from anybit.models.online import BESIDE, AtRunTime, copies, insert
from anybit.models.online import read as read_online
from anybit.models.plan import Plan
from anybit.models.tokenizer import Tokenizer, load_tokenizer
from anybit.models.weights import MANIFEST, WeightStore, check_shapes, open_store

BUNDLE = Path(__file__).resolve().parent.parent / "zoo" / "weights"
"""Package data: one directory a bundled model."""


@dataclass(frozen=True)
class Model:
    """A checkpoint: its directory, the object in config.json, the lowered plan and the lazy weights."""

    path: Path
    config: Mapping[str, Any]
    plan: Plan
    weights: WeightStore

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in the directory, loaded on first use; CheckpointError where there is none."""
        return load_tokenizer(self.path, self.config)

    @property
    def bits_per_weight(self) -> float:
        """8 * stored bytes of the plan's tensors / logical parameters; a tied matrix counts once."""
        names = self.plan.weight_names()
        bytes_ = sum(self.weights.nbytes(name) for name in names)
        return 8 * bytes_ / max(1, self.parameters)

    @property
    def parameters(self) -> int:
        """Logical parameters of the plan's tensors; columns split off a matrix are counted in it."""
        total = 0
        for name in self.plan.weight_names():
            if name.endswith(BESIDE):
                continue
            count = 1
            for n in self.weights.shape(name):
                count *= n
            total += count
        return total

    @property
    def nbytes(self) -> int:
        """Stored bytes of the plan's tensors."""
        return sum(self.weights.nbytes(name) for name in self.plan.weight_names())


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in BUNDLE.glob("*/config.json"))


def find(name_or_path: str | Path) -> Path:
    """The directory of a model: the path itself where it exists, else the bundled model of that name.

    Raises CheckpointError saying what was looked for and which names are bundled.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; a model is a directory with config.json and safetensors")
    name = str(name_or_path)
    if name in bundled():
        return BUNDLE / name
    raise CheckpointError(
        f"there is no model directory {name!r}, and no bundled model of that name (bundled: {', '.join(bundled()) or 'none'})"
    )


def load(name_or_path: str | Path, context: int | None = None, verify: bool = False) -> Model:
    """Open a model; reads config.json and the headers of the weights, and checks them before any work.

    context: the longest sequence to be run, for models whose RoPE table depends on it (longrope).
    verify: read every tensor and compare it with its sha256 (checkpoints written by anybit only).
    Raises CheckpointError (missing or damaged files, wrong shapes, pickle) or UnsupportedModelError (architecture, option).
    """
    directory = find(name_or_path)
    config = read_json(directory / "config.json", "a model directory holds config.json, safetensors and tokenizer.json")
    plan = lower(config, context)
    _check_origin(config, directory)
    at_run_time = online(config)
    plan = insert(plan, at_run_time)
    if verify:
        check_sums(directory)
    store = open_store(directory)
    _alias_head(plan, store)
    store.copies |= copies(at_run_time)
    check_shapes(store, plan.weight_shapes(), directory)
    act = static.asked_for(config)
    if act is not None:
        plan = static.insert(plan, store, act, directory)
    return Model(directory, config, plan, store)


def online(config: Mapping[str, Any]) -> list[AtRunTime]:
    """The transforms that config.json leaves to run time; CheckpointError where they are malformed."""
    settings = config.get("quantization_config")
    return read_online(settings) if isinstance(settings, Mapping) else []


def _check_origin(config: Mapping[str, Any], directory: Path) -> None:
    """Refuse what other tools quantized, and what anybit quantized but lost its manifest."""
    settings = config.get("quantization_config")
    if not settings:
        return
    method = settings.get("quant_method") if isinstance(settings, dict) else settings
    if method != "anybit":
        raise UnsupportedModelError(
            f"{directory} was quantized by {method!r}, which anybit does not read; start from the unquantized model"
        )
    if not (directory / MANIFEST).is_file():
        raise CheckpointError(f"{directory / MANIFEST} is missing: it describes the quantized tensors")


def _alias_head(plan: Plan, store: WeightStore) -> None:
    """In a tied model, whichever of embedding and head is stored answers to both names."""
    embedding = next(op.weights[0].name for op in plan.ops if op.kind == "embedding")
    head = next(op.weights[0].name for op in reversed(plan.ops) if op.kind == "linear")
    if head != embedding:
        return
    if embedding not in store and "lm_head.weight" in store:
        store.aliases[embedding] = "lm_head.weight"
    elif "lm_head.weight" not in store.formats:
        store.aliases["lm_head.weight"] = embedding
