"""Transforms in a recipe: the function stays before quantization, what is written loads in every executor, interruptions change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.models.conftest import MODELS, tiny_model  # noqa: F401 (a fixture)

from anybit import models, recipes
from anybit.errors import CheckpointError, RecipeError
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor
from anybit.models.activations import activation_tails
from anybit.models.plan import WeightRef
from anybit.models.transformers_executor import TransformersExecutor
from anybit.recipes import calibration, items, job, journal
from anybit.recipes.transforming import transformed
from anybit.runtime.executor import NativeExecutor
from anybit.tensors import quantize

from .conftest import write_model
from .test_pipeline import digest

AFFINE = {"name": "block_affine", "options": {"block": 4, "shared": 2, "act": "int4/g4", "steps": 6, "batch": 2}}
SORTED = {"name": "sort_keys", "options": {"mode": "after", "values": True}}
AWQ = {"name": "awq", "options": {"steps": 5}}
EVERY = ["smooth", AWQ, "permute", "hadamard", AFFINE, SORTED, "rotate_inputs"]
IDS = [3, 90, 17, 17, 64, 5, 121, 44, 8, 30, 77, 12]


class Pieces:
    """A journal in memory."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[dict[str, torch.Tensor], object]] = {}

    def has(self, name: str) -> bool:
        return name in self.held

    def put(self, name: str, tensors: dict[str, torch.Tensor], note: object) -> None:
        self.held[name] = dict(tensors), note

    def get(self, name: str) -> tuple[dict[str, torch.Tensor], object]:
        return self.held[name]


def job_of(path: Path, steps: list[object], out: Path) -> job.Job:
    model = models.load(path)
    recipe = recipes.Recipe.parse({"weights": "int4/g16", "method": "rtn", "transforms": steps})
    found = tuple(items.quantizable(model))
    generator = torch.Generator().manual_seed(0)
    ids = tuple(torch.randint(0, 131, (64,), generator=generator) for _ in range(4))
    windows = calibration.Windows(ids, 256, "")
    formats = items.fixed_formats(recipe, found)
    return job.Job(model, recipe, out, found, formats, items.account(model, found), windows, None)


def outlying(model: models.Model) -> models.Model:
    return models.inject_outliers(model, 0.03, 64.0, ("norm", "ud", "vo"))


SPLIT = {"name": "split", "options": {"threshold": 0.0, "ratio": 4.0, "most": 0.2}}


@pytest.mark.parametrize("name", MODELS)
def test_split_columns_are_read_by_matrices_of_their_own(tiny_model, name, tmp_path) -> None:  # noqa: F811
    start = job_of(tiny_model(name)[1], [SPLIT], tmp_path / "out")
    start = replace(start, model=outlying(start.model))
    done = transformed(start, Pieces(), lambda share, what: None)
    before, after = logits(start.model), logits(done.model)
    assert (after - before).norm() <= 1e-5 * before.norm()
    assert len(done.online) >= start.model.plan.layers
    assert [item.name for item in done.items] == [item.name for item in start.items]
    assert done.accounting.parameters == start.accounting.parameters == done.model.parameters
    native = NativeExecutor(done.model.plan, done.model.weights, act=None, kv="fp32").forward(IDS, "all")
    assert (native - before).norm() <= 2e-5 * before.norm()
    for each in done.online:
        for weight in each.weights:
            assert not done.model.weights.get(weight)[:, list(each.columns)].any()
    # With rounded activations the split pays, which is what it is for.
    act = TensorFormat.parse("int8/row")
    errors = []
    for job_ in (start, done):
        weights = {}
        for item in job_.items:
            weights[item.name] = quantize(job_.model.weights.get(item.name).float(), act)
        executor = TorchExecutor(job_.model.plan, models.Overlay(job_.model.weights, weights), act=act)
        errors.append(float((executor.forward(IDS, "all") - before).norm()))
    assert errors[1] < errors[0]


RESIDUAL = {"name": "residual", "options": {"share": 0.001, "most": 1.0}}


@pytest.mark.parametrize("name", MODELS)
def test_residual_channels_make_up_for_rounded_activations(tiny_model, name, tmp_path) -> None:  # noqa: F811
    act = TensorFormat.parse("nvfp4")
    start = job_of(tiny_model(name)[1], [RESIDUAL], tmp_path / "out")
    start = replace(start, model=outlying(start.model))
    done = transformed(start, Pieces(), lambda share, what: None)
    before = logits(start.model)
    # With exact activations nothing is left over.
    assert torch.equal(logits(done.model), before)
    assert done.accounting == start.accounting and done.model.nbytes == start.model.nbytes
    assert any(op.kind == "residual" for op in done.model.plan.ops)
    fmt, errors = TensorFormat.parse("int8/g16"), []
    for job_ in (start, done):
        weights = {i.name: quantize(job_.model.weights.get(i.name).float(), fmt) for i in job_.items}
        executor = TorchExecutor(job_.model.plan, models.Overlay(job_.model.weights, weights), act=act)
        errors.append(float((executor.forward(IDS, "all") - before).norm()))
    assert errors[1] < errors[0]


def logits(model: models.Model) -> torch.Tensor:
    return TorchExecutor(model.plan, model.weights).forward(IDS, "all")


@pytest.mark.parametrize("step", EVERY, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_every_transform_keeps_the_logits_of_every_family(tiny_model, name, step, tmp_path) -> None:  # noqa: F811
    start = job_of(tiny_model(name)[1], [step], tmp_path / "out")
    done = transformed(start, Pieces(), lambda share, what: None)
    before, after = logits(start.model), logits(done.model)
    assert (after - before).norm() <= 1e-5 * before.norm()
    changed = [
        item.name
        for item in done.items
        if not torch.equal(done.model.weights.get(item.name).float(), start.model.weights.get(item.name).float())
    ]
    assert changed
    assert [item.name for item in done.items] == [item.name for item in start.items]


@pytest.mark.parametrize(
    "steps",
    [
        ["smooth", "hadamard"],
        ["smooth", "permute", AFFINE],
        ["sort_keys", "hadamard"],
        [SORTED, "smooth", "hadamard"],
        ["permute", "awq", "rotate_inputs"],
        ["permute", "smooth", "hadamard"],
    ],
)
@pytest.mark.parametrize("name", ["llama_biases_tied", "phi3", "gemma3", "qwen3"])
def test_transforms_in_a_row(tiny_model, name, steps, tmp_path) -> None:  # noqa: F811
    start = job_of(tiny_model(name)[1], steps, tmp_path / "out")
    done = transformed(start, Pieces(), lambda share, what: None)
    before, after = logits(start.model), logits(done.model)
    assert (after - before).norm() <= 2e-5 * before.norm()


def test_smoothing_evens_out_what_it_is_meant_to(tiny_model, tmp_path) -> None:  # noqa: F811
    path = tiny_model("llama")[1]
    model = models.inject_outliers(models.load(path), 0.05, 64.0, ("norm",))
    ratios = []
    for steps in ([], ["smooth"]):
        start = replace(job_of(path, steps, tmp_path / "out"), model=model)
        done = transformed(start, Pieces(), lambda share, what: None)
        tails = activation_tails(done.model, IDS)
        ratios.append(tails["model.layers.1.mlp.gate_proj.weight"].max_to_median)
    assert ratios[1] < ratios[0] / 3


def test_hadamard_flattens_outliers_of_the_stream(tiny_model, tmp_path) -> None:  # noqa: F811
    path = tiny_model("llama")[1]
    model = models.inject_outliers(models.load(path), 0.02, 64.0, ("norm", "ud"))
    kurtosis = []
    for steps in ([], ["hadamard"]):
        start = replace(job_of(path, steps, tmp_path / "out"), model=model)
        done = transformed(start, Pieces(), lambda share, what: None)
        tails = activation_tails(done.model, IDS)
        kurtosis.append([tails[f"model.layers.1.{n}.weight"].kurtosis for n in ("self_attn.q_proj", "mlp.down_proj")])
    assert kurtosis[1][0] < kurtosis[0][0] / 3 and kurtosis[1][1] < kurtosis[0][1] / 3


def recipe_of(steps: list[object], text: Path, method: str = "gptq") -> recipes.Recipe:
    made = {"text": str(text), "samples": 6, "length": 64}
    return recipes.Recipe.parse({"weights": "int4/g16", "method": method, "transforms": steps, "calibration": made})


@pytest.mark.parametrize("which", ["model", "tied"])
@pytest.mark.parametrize("step", EVERY, ids=str)
def test_what_is_written_is_the_same_model_to_all_executors(
    which: str, step: str, text: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(which)
    result = recipes.run(source, recipe_of([step], text), tmp_path / "out")
    made = models.load(tmp_path / "out", verify=True)
    assert result.bytes == made.nbytes and result.bits_per_weight == pytest.approx(made.bits_per_weight)
    wanted = TorchExecutor(made.plan, made.weights).forward([256, *IDS], "all")
    native = NativeExecutor(made.plan, made.weights, act=None, kv="fp32").forward([256, *IDS], "all")
    assert (native - wanted).norm() <= 1e-4 * wanted.norm()
    other = TransformersExecutor(tmp_path / "out").forward([256, *IDS], "all")
    assert (other - wanted).norm() <= 1e-4 * wanted.norm()
    original = logits(models.load(source))
    assert (logits(made) - original).norm() < 0.5 * original.norm()


def test_norms_stay_as_small_as_they_were(model: Path, text: Path, tmp_path: Path) -> None:
    plain = recipes.run(model, recipe_of([], text), tmp_path / "plain")
    for step in EVERY:
        if step is AFFINE:  # which stores two bytes for every entry of its factors and bounds
            widths = [32, 32, 32, 80] * 2
            extra = sum(2 * (2 * 2 + width // 4 * (2 * 2 + 2)) for width in widths)
            made = recipes.run(model, recipe_of([step], text), tmp_path / "affine")
            assert made.bytes == plain.bytes + extra and made.parameters == plain.parameters
            continue
        assert recipes.run(model, recipe_of([step], text), tmp_path / f"{EVERY.index(step)}").bytes == plain.bytes


def test_a_written_split_loads_and_transformers_is_refused(model: Path, text: Path, tmp_path: Path) -> None:
    result = recipes.run(model, recipe_of([SPLIT, "rotate_inputs"], text, "llm_int8"), tmp_path / "out")
    made = models.load(tmp_path / "out", verify=True)
    assert result.bytes == made.nbytes and result.parameters == made.parameters
    assert any(name.endswith(".outliers") for name in made.weights.names())
    wanted = TorchExecutor(made.plan, made.weights).forward([256, *IDS], "all")
    native = NativeExecutor(made.plan, made.weights, act=None, kv="fp32").forward([256, *IDS], "all")
    assert (native - wanted).norm() <= 1e-4 * wanted.norm()
    rounded = TorchExecutor(made.plan, made.weights, act=TensorFormat.parse("int8/row")).forward([256, *IDS], "all")
    for threads in (1, 2):
        engine = NativeExecutor(made.plan, made.weights, act="int8/row", kv="fp32", threads=threads)
        one_by_one = torch.cat([engine.forward([token], "all") for token in (256, *IDS)])
        engine.reset()
        together = engine.forward([256, *IDS], "all")
        for found in (one_by_one, together):
            assert (found - rounded).norm() <= 2e-3 * rounded.norm() < (wanted - rounded).norm()
    with pytest.raises(CheckpointError, match="outlier columns in matrices of their own"):
        TransformersExecutor(tmp_path / "out")


def test_a_written_residual_copies_the_codes_and_stores_nothing_more(model: Path, text: Path, tmp_path: Path) -> None:
    plain = recipes.run(model, recipe_of([], text, "arcquant"), tmp_path / "plain")
    result = recipes.run(model, recipe_of([RESIDUAL], text, "arcquant"), tmp_path / "out")
    made = models.load(tmp_path / "out", verify=True)
    assert result.bytes == made.nbytes == plain.bytes and result.parameters == made.parameters
    (base, columns) = next(iter(made.weights.copies.values()))
    ref = next(iter(made.weights.copies))
    copied = made.weights.resolve(WeightRef(ref))
    assert torch.equal(copied.dequantize(), made.weights.get(base).dequantize()[:, columns])
    wanted = TorchExecutor(made.plan, made.weights).forward([256, *IDS], "all")
    native = NativeExecutor(made.plan, made.weights, act=None, kv="fp32").forward([256, *IDS], "all")
    assert (native - wanted).norm() <= 1e-4 * wanted.norm()
    other = TransformersExecutor(tmp_path / "out").forward([256, *IDS], "all")
    assert (other - wanted).norm() <= 1e-4 * wanted.norm()
    rounded = TorchExecutor(made.plan, made.weights, act=TensorFormat.parse("nvfp4")).forward([256, *IDS], "all")
    assert torch.isfinite(rounded).all() and not torch.equal(rounded, wanted)


class Stopped(Exception):
    pass


def test_learning_lowers_the_error_of_blocks_on_held_out_windows(model: Path, text: Path, tmp_path: Path) -> None:
    """With rounded activations, against the Hadamard matrices that it starts from; and kept layers have no transform."""
    start = models.load(model)
    models.outliers.write(models.inject_outliers(start, 0.1, 8.0, ("norm", "ud", "vo")), tmp_path / "outlying")
    step = {"name": "block_affine", "options": {**AFFINE["options"], "steps": 60, "rate": 0.01, "start": "hadamard"}}
    recipe = recipe_of([step], text, "batquant")
    recipe = recipe.model_copy(update={"overrides": (recipes.Override(pattern="*.1.mlp.down*", weights="keep"),)})
    recipes.run(tmp_path / "outlying", recipe, tmp_path / "out")
    made = models.load(tmp_path / "out", verify=True)
    assert "model.layers.0.mlp.down_proj.affine_own" in made.weights
    assert "model.layers.1.mlp.down_proj.affine_own" not in made.weights

    pieces = Pieces()
    given = job_of(
        tmp_path / "outlying", [{**step, "options": {**step["options"], "act": "int4/g4"}}], tmp_path / "job"
    )
    transformed(given, pieces, lambda share, what: None)
    notes = [note for _, note in pieces.held.values() if isinstance(note, dict) and "block_error_after" in note]
    assert len(notes) == start.plan.layers
    assert all(note["block_error_after"] < 0.97 * note["block_error_before"] for note in notes)


def test_a_run_killed_while_it_learns_ends_in_the_same_bytes(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = recipe_of([AFFINE], text, "batquant")
    recipes.run(model, recipe, tmp_path / "whole")

    def stop(share: float, what: str) -> None:
        if "learned block 1" in what:
            raise Stopped

    with pytest.raises(Stopped):
        recipes.run(model, recipe, tmp_path / "broken", progress=stop)
    assert recipes.run(model, recipe, tmp_path / "broken").resumed == 1
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")


@pytest.mark.parametrize("after", ["transform", "quantized model.layers.1.self_attn.q_proj"])
def test_an_interrupted_run_ends_in_the_same_bytes(after: str, model: Path, text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(["awq", "permute", "hadamard"], text)
    recipes.run(model, recipe, tmp_path / "whole")
    seen: list[str] = []

    def stop(share: float, what: str) -> None:
        seen.append(what)
        if what.startswith(after) and sum(each.startswith(after) for each in seen) == (
            2 if after == "transform" else 1
        ):
            raise Stopped

    with pytest.raises(Stopped):
        recipes.run(model, recipe, tmp_path / "broken", progress=stop)
    assert journal.folder(tmp_path / "broken").exists()
    assert recipes.run(model, recipe, tmp_path / "broken").resumed > 0
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")


def test_a_budget_takes_transforms_too(model: Path, text: Path, tmp_path: Path) -> None:
    made = {"text": str(text), "samples": 6, "length": 64}
    choices = ["int2/g16", "int4/g16", "int8/g16"]
    recipe = recipes.Recipe.parse(
        {"bits": 4.6, "choices": choices, "calibration": made, "transforms": ["awq", "hadamard"]}
    )
    result = recipes.run(model, recipe, tmp_path / "out")
    assert result.bits_per_weight <= 4.6 and result.bytes == models.load(tmp_path / "out").nbytes


def test_refusals(tmp_path: Path, text: Path) -> None:
    path = write_model(tmp_path / "model")
    with pytest.raises(RecipeError, match="unknown transform 'spin'; known: smooth, awq"):
        recipe_of(["spin"], text)
    with pytest.raises(RecipeError, match="transform smooth: alpha must lie in"):
        recipe_of([{"name": "smooth", "options": {"alpha": 2.0}}], text)
    with pytest.raises(RecipeError, match="smooth has no option 'beta'"):
        recipe_of([{"name": "smooth", "options": {"beta": 1}}], text)
    with pytest.raises(RecipeError, match="block of 24 does not divide the 80 channels"):
        recipes.run(path, recipe_of([{"name": "hadamard", "options": {"block": 24}}], text), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not journal.folder(tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="blocks of 32 do not divide the 80 inputs"):
        recipes.preflight(path, recipe_of(["block_affine"], text), tmp_path / "out")
