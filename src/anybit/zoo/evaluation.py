"""The metric of a member, as it is or quantized."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from anybit import models
from anybit.errors import AnybitError
from anybit.models import Model, TorchExecutor
from anybit.models.config import read_json
from anybit.models.evaluation import cut, perplexity
from anybit.models.module_state import MANIFEST, load_module
from anybit.models.outliers import NOTE
from anybit.zoo.data import data_file
from anybit.zoo.loading import OUTLIERS, load
from anybit.zoo.members import MEMBERS, Member, find
from anybit.zoo.networks import NETWORKS, Progress, silent

STORIES = "text/tinystories_train_excerpt.txt"


@dataclass(frozen=True)
class Evaluation:
    """member: whose metric.  target: what was scored, a name or a directory.  value: the metric.  bytes: of the weights stored.

    more: other figures of a quantized member by name, beside the unquantized one.
    """

    member: Member
    target: str
    value: float
    bytes: int
    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """How much better than the bar, in the metric's unit; negative where it is worse."""
        assert self.member.bar is not None, "a member with weights has a bar"
        return (self.value - self.member.bar) * (1 if self.member.better == "high" else -1)


def evaluate(target: str, progress: Progress = silent) -> Evaluation:
    """Score a member by name, or a directory that `anybit quantize` made from one.

    Raises AnybitError where it is neither, or the data of the metric is missing.
    """
    started = time.perf_counter()
    more: Mapping[str, float] = {}
    progress("loading", 0, 1)
    if Path(target).is_dir():
        member, model, size = _directory(Path(target))
    else:
        member = find(target)
        model, size = load(target), member.path().stat().st_size
    if isinstance(model, Model):
        value = _decoder(member, model, progress)
    else:
        network = NETWORKS[member.name]
        value = network.score(model, progress)
        if network.compare is not None and target != member.name:
            whole = load(member.name)
            assert isinstance(whole, nn.Module), "a network"
            more = network.compare(model, whole, progress)
    return Evaluation(member, target, value, size, time.perf_counter() - started, more)


def _directory(path: Path) -> tuple[Member, Model | nn.Module, int]:
    if (path / "config.json").is_file():
        model = models.load(path)
        return member_of(model), model, model.nbytes
    notes = read_json(path / MANIFEST, "a quantized member of the zoo has one").get("notes", {})
    name = notes.get("member") if isinstance(notes, dict) else None
    if name not in NETWORKS:
        raise AnybitError(
            f"{path / MANIFEST} names no member of the zoo; make the directory with `anybit quantize NAME OUT`"
        )
    module = NETWORKS[name].build()
    load_module(module, path)
    size = (path / "model.safetensors").stat().st_size
    return find(name), module.eval().requires_grad_(False), size


def member_of(model: Model) -> Member:
    """The decoder of the zoo that a model was made from, by its config. AnybitError where there is none."""
    wanted = {key: value for key, value in model.config.items() if key not in ("quantization_config", NOTE)}
    for member in MEMBERS:
        if not member.decoder or (member.name == OUTLIERS) != (NOTE in model.config):
            continue
        try:
            config = read_json(member.path().parent / "config.json", "of a member")
        except AnybitError:
            continue  # of a third party's, which is not here
        if config == wanted:
            return member
    raise AnybitError(f"{model.path} was not made from a member of the zoo; `anybit eval` scores any decoder on a text")


def _decoder(member: Member, model: Model, progress: Progress) -> float:
    """Perplexity of the held-out text for our own, nats a token of the stories for the third party's."""
    story = member.name == "stories260k"
    text = data_file(STORIES) if story else model.path / "heldout.txt"
    ids = model.tokenizer.encode(text.read_text(encoding="utf-8"))
    windows = cut(ids, model.plan.max_positions, model.tokenizer.bos)

    def told(done: int, total: int) -> None:
        progress(f"{done:,} of {total:,} tokens", done, total)

    with torch.no_grad():
        score = perplexity(TorchExecutor(model.plan, model.weights), windows, told)
    return score.nll if story else score.perplexity
