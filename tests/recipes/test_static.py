"""Static scales in a recipe: what is stored is the largest input of the finished model, whatever interrupts the run on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anybit import models, recipes
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor, inject_outliers, outliers, static
from anybit.models.evaluation import Remembering, cut, divergence, perplexity
from anybit.models.plan import WeightRef
from anybit.ops import StaticFormat
from anybit.recipes import Recipe, calibration, journal, preflight
from anybit.recipes.job import check
from anybit.runtime.executor import NativeExecutor
from anybit.tensors import QTensor

from .conftest import weights, write_model

INT8 = StaticFormat.parse("int8/static")


def recipe(text: Path, **fields: Any) -> Recipe:
    how = {"text": str(text), "samples": 6, "length": 64}
    given = {"weights": "int8/row", "method": "rtn", "activations": "int8/static", "calibration": how}
    return Recipe.parse(given | fields)


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


TURNED = {"rotated": ["rotate_inputs"], "smooth": [{"name": "smooth", "options": {"values": True, "down": True}}]}


@pytest.mark.parametrize("kind", ["rtn", "gptq", "smoothquant", "llm_int8", "tied", "mixed", *TURNED])
def test_scales_are_the_largest_inputs_of_the_finished_model(
    kind: str, model: Path, tied: Path, text: Path, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"method": kind} if kind not in ("tied", "mixed", *TURNED) else {}
    if kind in TURNED:
        fields = {"transforms": TURNED[kind]}
    if kind == "mixed":
        fields = {"weights": None, "bits": 4.2, "choices": ["int2/g16", "int4/g16", "int8/g16"], "method": "rtn"}
    source = tied if kind == "tied" else model
    wanted = recipe(text, **fields)
    result = recipes.run(source, wanted, tmp_path / "out")
    made = models.load(tmp_path / "out", verify=True)
    assert result.bytes == made.nbytes
    tops: dict[str, torch.Tensor] = {}

    def watch(ref: WeightRef, x: torch.Tensor) -> None:
        if isinstance(made.weights.resolve(ref), QTensor):
            tops[ref.name] = torch.maximum(tops.get(ref.name, torch.zeros(())), x.abs().amax())

    executor = TorchExecutor(made.plan, made.weights, on_linear=watch)
    original = models.load(source)
    for window in calibration.windows(original, text.read_text(), wanted.calibration, "text").ids:
        executor.reset()
        executor.forward(window, "all")
    quantized = [op for op in made.plan.ops if op.kind == "linear" and op.weights[0].name in made.weights.formats]
    assert {op.weights[0].name for op in quantized} == set(tops) and len(tops) >= 14
    for op in quantized:
        assert static.of(op, INT8).scale == pytest.approx(float(tops[op.weights[0].name]) / 127, rel=1e-4)
    reference = TorchExecutor(made.plan, made.weights, act=INT8).forward(list(range(60)), "all")
    native = NativeExecutor(made.plan, made.weights, kv="fp32").forward(list(range(60)), "all")
    # both round the same numbers but for those at the middle of two codes behind other sums
    assert (native - reference).norm() < 0.02 * reference.norm()


def test_projections_that_read_one_value_share_a_scale(model: Path, text: Path, tmp_path: Path) -> None:
    recipes.run(model, recipe(text), tmp_path / "out")
    plan = models.load(tmp_path / "out").plan
    scales = {op.weights[0].name: op.attrs["input_scale"] for op in plan.ops if op.kind == "linear"}
    for names in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
        assert len({scales[f"model.layers.0.{name}.weight"] for name in names}) == 1


def test_killed_and_started_again_gives_the_same_bytes(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(text)
    recipes.run(model, wanted, tmp_path / "whole")
    put = journal.Journal.put
    for stop in ("weight:lm_head.weight", "input scales"):

        def stopping(self: Any, name: str, *rest: Any, stop: str = stop) -> None:
            if name == stop:
                raise KeyboardInterrupt
            put(self, name, *rest)

        monkeypatch.setattr(journal.Journal, "put", stopping)
        with pytest.raises(KeyboardInterrupt):
            recipes.run(model, wanted, tmp_path / "out")
    monkeypatch.undo()
    result = recipes.run(model, wanted, tmp_path / "out")
    assert result.resumed > 10
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_other_activations_are_another_job(model: Path, text: Path, tmp_path: Path) -> None:
    static_one, plain = recipe(text), recipe(text, activations=None)
    assert static_one.fingerprint() != plain.fingerprint()
    recipes.run(model, plain, tmp_path / "plain")
    assert static.format_of(models.load(tmp_path / "plain").plan) is None
    recipes.run(model, static_one, tmp_path / "static")
    one, other = models.load(tmp_path / "plain"), models.load(tmp_path / "static")
    assert other.nbytes - one.nbytes == 4 * sum(op.kind == "linear" for op in other.plan.ops)


def test_preflight_counts_them_and_names_the_text(model: Path, text: Path, tmp_path: Path) -> None:
    said = preflight(model, recipe(text), tmp_path / "out")
    assert said.activations == "int8/static" and said.calibration == text
    assert said.predicted_bytes == recipes.run(model, recipe(text), tmp_path / "out").bytes
    assert preflight(model, recipe(text, activations="int8/row"), tmp_path / "other").calibration is None


def test_without_a_text_it_is_refused(model: Path, tmp_path: Path) -> None:
    wanted = Recipe.parse({"weights": "int8/row", "method": "rtn", "activations": "int8/static"})
    with pytest.raises(RecipeError, match=r"has no calibration\.txt of its own; give a text"):
        check(model, wanted, tmp_path / "out")


def test_inputs_that_are_not_finite_are_named(text: Path, tmp_path: Path) -> None:
    tensors = weights(tied=False)
    tensors["model.layers.1.post_attention_layernorm.weight"][3] = float("inf")
    broken = write_model(tmp_path / "broken", tensors=tensors)
    with pytest.raises(
        RecipeError, match=r"layers\.1\.mlp\.\w+_proj\.weight: the calibration inputs hold NaN or infinite"
    ):
        recipes.run(broken, recipe(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activations": "int1/static"}, "activations: 'int1/static': static activations are signed integers"),
        ({"activations": "int8/statik"}, "unknown block 'statik'"),
        ({"activations": None, "activation_rule": "mse"}, "activation_rule mse is for static activations"),
        ({"activation_rule": "median"}, "activation_rule"),
        ({"transforms": ["residual"], "weights": "nvfp4"}, "leave no residual that the transform residual could add"),
        ({"weights": "int8/static"}, "unknown block 'static'"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str, text: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(text, **fields)


Score = Callable[[dict[str, Any], str | None], tuple[float, float]]


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    """(recipe fields, activations) -> (KL divergence in nats a token, perplexity) of anybit-tiny, and of it with outlier channels."""
    work = tmp_path_factory.mktemp("scores")
    source = models.load("anybit-tiny")
    outlying = work / "outliers"
    outliers.write(inject_outliers(source, fraction=0.02, scale=32.0, seed=0), outlying)
    text = (source.path / "calibration.txt").read_text(encoding="utf-8")
    windows = cut(source.tokenizer.encode(text), 256, source.tokenizer.bos, limit=2000)

    def on(original: Model, name: str) -> Score:
        exact = Remembering(TorchExecutor(original.plan, original.weights))
        known: dict[str, Model] = {}

        def run(fields: dict[str, Any], act: str | None) -> tuple[float, float]:
            key = repr(sorted(fields.items()))
            if key not in known:
                how = {"text": str(source.path / "calibration.txt"), "samples": 8, "length": 256}
                given = {"weights": "int8/row", "activations": "int8/static", "calibration": how, **fields}
                recipes.run(original.path, Recipe.parse(given), work / f"{name}{len(known)}")
                known[key] = models.load(work / f"{name}{len(known)}")
            made = known[key]
            fmt = INT8 if act == "int8/static" else TensorFormat.parse(act) if act else None
            executor = Remembering(TorchExecutor(made.plan, made.weights, act=fmt))
            return divergence(executor, exact, windows).kl, perplexity(executor, windows).perplexity

        return run

    return {"plain": on(source, "plain"), "outliers": on(models.load(outlying), "outliers")}


RTN: dict[str, Any] = {"method": "rtn", "options": {"scale_rule": "absmax"}}


def test_scales_of_the_same_text_give_nearly_the_dynamic_perplexity(score: dict[str, Score]) -> None:
    """Next to that of one dynamic scale for all tokens of a window; one a token has finer steps for all but the largest."""
    fixed, whole, row = (score["plain"](RTN, act)[1] for act in ("int8/static", "int8/tensor", "int8/row"))
    assert fixed == pytest.approx(whole, rel=0.005)
    assert fixed == pytest.approx(row, rel=0.025)


def test_scales_of_least_squared_error_lose_less(score: dict[str, Score]) -> None:
    """This model's down projections have a few inputs many times larger than the others."""
    largest, least = (score["plain"](RTN | {"activation_rule": rule}, "int8/static")[0] for rule in ("absmax", "mse"))
    assert least < 0.75 * largest


def test_with_outliers_smoothing_loses_less_than_rounding(score: dict[str, Score]) -> None:
    plain, smooth = (score["outliers"](fields, "int8/static")[0] for fields in (RTN, {"method": "smoothquant"}))
    assert smooth < plain
