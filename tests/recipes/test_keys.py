"""Sorted keys: the function of every family stays, outliers stand together, what is written loads, packed caches hold what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.conftest import MODELS, tiny_model  # noqa: F401 (a fixture)

from anybit import models, recipes
from anybit.errors import AnybitError, CheckpointError, RecipeError
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor
from anybit.models.fold_graph import sites
from anybit.models.transformers_executor import TransformersExecutor
from anybit.recipes.transforming import transformed
from anybit.runtime.executor import NativeExecutor

from .test_pipeline import digest
from .test_transforming import IDS, Pieces, job_of, logits, recipe_of

PAIRS = {"name": "sort_keys", "options": {"mode": "pairs", "values": True}}
AFTER = {"name": "sort_keys", "options": {"mode": "after"}}


@pytest.mark.parametrize("step", [PAIRS, AFTER], ids=["pairs", "after"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_of_every_family_stay(tiny_model, name, step, tmp_path) -> None:  # noqa: F811
    start = job_of(tiny_model(name)[1], [step], tmp_path / "out")
    done = transformed(start, Pieces(), lambda share, what: None)
    before = logits(start.model)
    assert (logits(done.model) - before).norm() <= 1e-5 * before.norm()
    native = NativeExecutor(done.model.plan, done.model.weights, act=None, kv="fp32")
    got = torch.cat([native.forward(IDS[:7], "all"), native.forward(IDS[7:], "all")])
    assert (got - before).norm() <= 1e-5 * before.norm()
    assert len(done.online) == start.model.plan.layers


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3_short", "gemma3"])
def test_large_pairs_come_first(tiny_model, name, tmp_path) -> None:  # noqa: F811
    start = job_of(tiny_model(name)[1], [PAIRS], tmp_path / "out")
    start = replace(start, model=models.inject_outliers(start.model, 0.3, 16.0, ("qk",)))
    done = transformed(start, Pieces(), lambda share, what: None)
    before = logits(start.model)
    assert (logits(done.model) - before).norm() <= 1e-5 * before.norm()
    seen: dict[int, torch.Tensor] = {}

    class Watch:
        def extend(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen[layer] = keys
            return keys, values

    from anybit.models.interpreter import run

    run(done.model.plan, done.model.weights, done.model.plan.ops, {"ids": torch.tensor(IDS)}, cache=Watch())
    half = next(s.units for s in sites(start.model.plan) if s.kind == "qk" and s.made[0].index.shape[1] == 2)
    outliers = max(1, round(0.3 * half))
    for keys in seen.values():
        size = keys[..., : 2 * half].reshape(*keys.shape[:2], 2, half).square().sum((0, 2)).sqrt()
        assert (size[:, :outliers].min(1).values > 2 * size[:, outliers:].max(1).values).all()


def test_sorting_lowers_the_error_of_blocks_of_keys(tiny_model, tmp_path) -> None:  # noqa: F811
    start = job_of(
        tiny_model("qwen3_tied")[1], [PAIRS], tmp_path / "out"
    )  # heads of 16, with norms of queries and keys
    start = replace(start, model=models.inject_outliers(start.model, 0.25, 16.0, ("qk",), seed=3))
    errors = {}
    for label, steps in (("as it is", []), ("pairs", [PAIRS]), ("after", [AFTER])):
        job = replace(job_of(start.model.path, steps, tmp_path / "out"), model=start.model)
        model = transformed(job, Pieces(), lambda share, what: None).model
        keys = TensorFormat.parse("int4/g4:e8m0")
        executor = TorchExecutor(model.plan, model.weights, keys=keys, queries=TensorFormat.parse("int8/g4:e8m0"))
        errors[label] = float((executor.forward(IDS, "all") - logits(start.model)).norm())
    assert errors["pairs"] < 0.8 * errors["as it is"] and errors["after"] < 0.8 * errors["as it is"]


def test_a_packed_cache_takes_the_bytes_of_its_format_and_gives_the_same_in_pieces(tiny_model) -> None:  # noqa: F811
    model = models.load(tiny_model("qwen3_tied")[1])
    keys, values = TensorFormat.parse("int4/g8:e8m0"), TensorFormat.parse("int8/g16")
    whole = TorchExecutor(model.plan, model.weights, keys=keys, values=values)
    wanted = whole.forward(IDS, "all")
    rows = len(IDS) * model.plan.kv_heads * model.plan.layers
    assert whole.cache_bytes == (rows * (16 // 2 + 16 // 8), rows * (16 + 2))
    pieces = TorchExecutor(model.plan, model.weights, keys=keys, values=values)
    pieces.forward([5, 5, 5])
    pieces.truncate(0)
    got = [pieces.forward(IDS[:5], "all"), pieces.forward(IDS[5:9], "all")]
    pieces.truncate(7)
    got = [*got[:1], pieces.forward(IDS[7:], "all")]
    torch.testing.assert_close(torch.cat(got), wanted[[*range(5), *range(7, len(IDS))]], rtol=1e-4, atol=1e-4)
    plain = logits(model)
    assert not torch.equal(wanted, plain) and (wanted - plain).norm() < 0.5 * plain.norm()


def test_refusals(tiny_model, tmp_path, model: Path, text: Path) -> None:  # noqa: F811
    tiny = models.load(tiny_model("llama")[1])
    for spec in ("int4/g16:e8m0", "int4/g3:e8m0", "nvfp4", "int8/tensor"):
        with pytest.raises(AnybitError, match="divide the 8 channels of a head"):
            TorchExecutor(tiny.plan, tiny.weights, keys=TensorFormat.parse(spec))
    with pytest.raises(RecipeError, match="cannot be changed by permute"):
        recipes.run(model, recipe_of([PAIRS, PAIRS], text), tmp_path / "out")


@pytest.mark.parametrize("step", [PAIRS, AFTER], ids=["pairs", "after"])
def test_what_is_written_is_the_same_model(step, model: Path, text: Path, tmp_path: Path) -> None:
    plain = recipes.run(model, recipe_of([], text, "rtn"), tmp_path / "plain")
    result = recipes.run(model, recipe_of([step], text, "rtn"), tmp_path / "out")
    made = models.load(tmp_path / "out", verify=True)
    assert result.bytes == made.nbytes == plain.bytes
    wanted = logits(made)
    native = NativeExecutor(made.plan, made.weights, act=None, kv="fp32").forward(IDS, "all")
    assert (native - wanted).norm() <= 1e-4 * wanted.norm()
    if step is AFTER:
        other = TransformersExecutor(tmp_path / "out").forward(IDS, "all")
        assert (other - wanted).norm() <= 1e-4 * wanted.norm()
    else:
        with pytest.raises(CheckpointError, match="an order of each head"):
            TransformersExecutor(tmp_path / "out")
    recipes.run(model, recipe_of([step], text, "rtn"), tmp_path / "again")
    assert digest(tmp_path / "again") == digest(tmp_path / "out")
