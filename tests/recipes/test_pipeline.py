"""Whole runs on a tiny model: what is stored, that interruptions change nothing, that refusals leave nothing."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from anybit import models, recipes
from anybit.errors import AnybitError, RecipeError
from anybit.formats import TensorFormat
from anybit.models import checkpoint
from anybit.quantize import rtn, table
from anybit.recipes import journal
from anybit.runtime.executor import NativeExecutor
from anybit.tensors import QTensor

from .conftest import weights, write_model


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


QUICK: dict[str, dict[str, Any]] = {
    "gradient_ptq": {"options": {"steps": 40, "batch": 2}},
    "distill": {"options": {"steps": 20, "model_steps": 20, "batch": 2}},
    "matgptq_distill": {"options": {"model_steps": 10, "batch": 2}},
    "batquant": {
        "weights": "e2m1/g16:e8m0",
        "transforms": [{"name": "block_affine", "options": {"block": 16, "shared": 4, "steps": 6, "batch": 2}}],
    },
}
"""Fewer steps for methods that learn, and blocks that divide the widths of the model here."""
WIDE = {"rtn": "int4/g16"}
MIXED = {"bits": 4.2, "choices": ["int2/g16", "int4/g16", "int8/g16"]}
BUDGETS = {"mixed": MIXED, "mixed rtn": {**MIXED, "method": "rtn"}}
KINDS = (*table.METHODS, *BUDGETS)
KILLED = ("rtn", "gptq", "distill", "batquant", "mixed")
"""By SIGKILL too, which ends all of them in the same way; what a kind keeps of its own is tested by interrupting every one."""
TIED = ("rtn", "gptq", "distill", "mixed")
"""On a model whose embedding is its output matrix too, which no kind but those that learn whole models and budgets treat."""


def recipe_of(kind: str, text: Path) -> recipes.Recipe:
    """A budget, or a method with its own format and transforms, else with int3/g16."""
    calibration = {"text": str(text), "samples": 6, "length": 64}
    if kind in BUDGETS:
        return recipes.Recipe.parse({**BUDGETS[kind], "calibration": calibration})
    weights = table.get(kind).weights or WIDE.get(kind, "int3/g16")
    return recipes.Recipe.parse({"weights": weights, "method": kind, "calibration": calibration, **QUICK.get(kind, {})})


def test_rounded_weights_are_what_the_quantizer_gives(model: Path, tmp_path: Path) -> None:
    result = recipes.run(model, recipes.Recipe.parse({"weights": "int4/g16", "method": "rtn"}), tmp_path / "out")
    made, source = models.load(tmp_path / "out"), weights(tied=False)
    for name, spec in result.formats.items():
        got = made.weights.get(name)
        assert isinstance(got, QTensor)
        expected = rtn.quantize(source[name], TensorFormat.parse(spec)).qtensor
        assert torch.equal(got.codes, expected.codes) and torch.equal(got.scale, expected.scale)
    assert set(source) == set(made.weights.names())
    norm = made.weights.get("model.norm.weight")
    assert torch.equal(norm, source["model.norm.weight"])
    assert result.formats["model.embed_tokens.weight"] == result.formats["lm_head.weight"] == "int8/row"
    assert checkpoint.verify(tmp_path / "out") > len(result.formats)


@pytest.mark.parametrize("which, kind", [*(("model", kind) for kind in KINDS), *(("tied", kind) for kind in TIED)])
def test_the_result_states_what_is_stored(
    which: str, kind: str, text: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(which)
    recipe = recipe_of(kind, text)
    plan = recipes.preflight(source, recipe, tmp_path / "out")
    seen: list[float] = []
    result = recipes.run(source, recipe, tmp_path / "out", progress=lambda share, what: seen.append(share))
    made = models.load(tmp_path / "out")
    assert result.bytes == made.nbytes
    assert result.parameters == made.parameters == plan.parameters
    assert (
        result.bits_per_weight
        == pytest.approx(8 * made.nbytes / made.parameters)
        == pytest.approx(made.bits_per_weight)
    )
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1
    assert not journal.folder(tmp_path / "out").exists()
    if recipe.bits is None:
        assert result.expected_loss is None
        beside = result.bytes - plan.predicted_bytes  # transforms may store vectors and outlier columns
        assert beside == 0 or (recipe.steps and 0 < beside < 0.2 * result.bytes)
    else:
        assert result.bits_per_weight <= recipe.bits
        assert result.bytes <= plan.predicted_bytes
        assert result.expected_loss is not None and result.expected_loss > 0
        assert len(set(result.formats.values())) > 1
    logits = models.TorchExecutor(made.plan, made.weights).forward([256, 5, 9])
    assert torch.isfinite(logits).all()
    native = NativeExecutor(made.plan, made.weights, act=None, kv="fp32").forward([256, 5, 9])
    assert (native - logits).norm() <= 1e-4 * logits.norm()


def test_learned_blocks_err_less_than_gptq_that_less_than_rounding_and_distilled_ones_least(
    model: Path, text: Path, tmp_path: Path
) -> None:
    losses = {}
    reference = models.load(model)
    ids = [256, *reference.tokenizer.encode(text.read_text())[:100]]
    wanted = models.TorchExecutor(reference.plan, reference.weights).forward(ids, "all").log_softmax(-1)
    for method in ("rtn", "gptq", "gradient_ptq", "distill"):
        given = (
            {"model_rate": 0.001, "model_scale_rate": 0.001} if method == "distill" else {}
        )  # little text for so small a model
        recipe = recipes.Recipe.parse(
            {
                "weights": "int3/g16",
                "method": method,
                "options": given,
                "calibration": {"text": str(text), "length": 64},
            }
        )
        recipes.run(model, recipe, tmp_path / method)
        made = models.load(tmp_path / method)
        got = models.TorchExecutor(made.plan, made.weights).forward(ids, "all").log_softmax(-1)
        losses[method] = float((wanted.exp() * (wanted - got)).sum(-1).mean())
    assert losses["gptq"] < losses["rtn"]
    assert losses["gradient_ptq"] < losses["gptq"]
    assert losses["distill"] < 0.9 * losses["gradient_ptq"]


def test_blocks_learned_with_rounded_inputs_err_less_with_them(model: Path, text: Path, tmp_path: Path) -> None:
    """Activations of 3 bits: learned for them, half of the elements dropped in every step, beside learned for exact ones."""
    reference = models.load(model)
    ids = [256, *reference.tokenizer.encode(text.read_text())[:100]]
    wanted = models.TorchExecutor(reference.plan, reference.weights).forward(ids, "all").log_softmax(-1)
    act, losses = TensorFormat.parse("int3/row"), []
    for options in ({}, {"act": str(act)}):
        calibration = {"text": str(text), "length": 64}
        given = {"weights": "int4/g16", "method": "gradient_ptq", "options": options, "calibration": calibration}
        out = tmp_path / ("rounded" if options else "exact")
        recipes.run(model, recipes.Recipe.parse(given), out)
        made = models.load(out)
        got = models.TorchExecutor(made.plan, made.weights, act=act).forward(ids, "all").log_softmax(-1)
        losses.append(float((wanted.exp() * (wanted - got)).sum(-1).mean()))
    assert losses[1] < losses[0]


def test_more_bits_are_never_expected_to_lose_more(model: Path, text: Path, tmp_path: Path) -> None:
    expected = []
    for number, bits in enumerate((3.5, 4.5, 6.0)):
        recipe = recipe_of("mixed", text).model_copy(update={"bits": bits})
        expected.append(recipes.run(model, recipe, tmp_path / str(number)).expected_loss)
    assert expected == sorted(expected, reverse=True)


def test_overrides_and_fixed_formats_hold_under_a_budget(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = recipes.Recipe.parse(
        {
            **recipe_of("mixed", text).model_dump(mode="json"),
            "bits": 6.0,
            "overrides": [{"pattern": "*.0.mlp.down_proj.weight", "weights": "keep"}],
            "lm_head": "int8/row",
        }
    )
    result = recipes.run(model, recipe, tmp_path / "out")
    assert result.formats["model.layers.0.mlp.down_proj.weight"] == "keep"
    assert result.formats["lm_head.weight"] == "int8/row"
    made = models.load(tmp_path / "out").weights
    assert made.dtype("model.layers.0.mlp.down_proj.weight") == torch.bfloat16
    assert result.bits_per_weight <= 6.0


RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from anybit import recipes
recipes.run(sys.argv[1], recipes.Recipe.read(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_between_pieces_and_started_again_gives_the_same_bytes(
    kind: str, model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops before each piece in turn as a kill would: nothing of the interrupted piece is there, everything before is."""
    recipe = recipe_of(kind, text)
    recipes.run(model, recipe, tmp_path / "whole")
    put = journal.Journal.put
    stops = 0

    class Killed(BaseException):
        pass

    def once(self: journal.Journal, *arguments: object) -> None:
        nonlocal written
        if written == 2:
            raise Killed
        written += 1
        put(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(journal.Journal, "put", once)
    while True:
        written = 0
        try:
            result = recipes.run(model, recipe, tmp_path / "pieces")
            break
        except Killed:
            stops += 1
    assert stops >= 3 and result.resumed > 0
    assert digest(tmp_path / "pieces") == digest(tmp_path / "whole")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes that are killed have: results depend on the number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "kind", [kind if kind in KILLED else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_sigkill_at_random_moments_gives_the_same_bytes(kind: str, model: Path, text: Path, tmp_path: Path) -> None:
    recipe = recipe_of(kind, text)
    document, out = tmp_path / "recipe.json", tmp_path / "out"
    document.write_text(recipe.to_json())
    recipes.run(model, recipe, tmp_path / "whole")
    for pieces in (1, 4) if kind in ("gptq", "distill") else (3,):
        process = subprocess.Popen([sys.executable, "-c", RUN, str(model), str(document), str(out)])
        deadline = time.monotonic() + 120
        while (
            process.poll() is None
            and len(list(journal.folder(out).glob("*.safetensors"))) < pieces
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert recipes.run(model, recipe, out, overwrite=out.exists()).out == out
    assert digest(out) == digest(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("out")) == ["out"]


def test_killed_after_the_checkpoint_was_in_place(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("rtn", text)
    with monkeypatch.context() as patched:
        patched.setattr(journal.Journal, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recipes.run(model, recipe, tmp_path / "out")
    before = digest(tmp_path / "out")
    result = recipes.run(model, recipe, tmp_path / "out")
    assert digest(tmp_path / "out") == before and result.resumed > 0
    assert not journal.folder(tmp_path / "out").exists()


def test_resuming_another_job_is_refused_and_overwrite_restarts(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("anybit.recipes.output.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            recipes.run(model, recipe_of("rtn", text), tmp_path / "out")
    other = write_model(tmp_path / "other", seed=1)
    for source, recipe, what in (
        (model, recipe_of("gptq", text), "calibration, recipe"),
        (other, recipe_of("rtn", text), "differs in model"),
    ):
        with pytest.raises(RecipeError, match=f"unfinished job.*{what}.*--overwrite"):
            recipes.run(source, recipe, tmp_path / "out")
    recipes.run(other, recipe_of("rtn", text), tmp_path / "out", overwrite=True)
    recipes.run(other, recipe_of("rtn", text), tmp_path / "fresh")
    assert digest(tmp_path / "out") == digest(tmp_path / "fresh")


def test_an_output_that_exists_is_left_alone_unless_overwritten(model: Path, text: Path, tmp_path: Path) -> None:
    recipes.run(model, recipe_of("rtn", text), tmp_path / "out")
    before = digest(tmp_path / "out")
    with pytest.raises(AnybitError, match=r"exists.*--overwrite"):
        recipes.run(model, recipe_of("gptq", text), tmp_path / "out")
    assert digest(tmp_path / "out") == before
    recipes.run(model, recipe_of("gptq", text), tmp_path / "out", overwrite=True)
    assert digest(tmp_path / "out") != before


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"]
)
def test_nan_weights_are_named_and_nothing_is_left(name: str, text: Path, tmp_path: Path) -> None:
    tensors = weights(tied=False)
    tensors[name].view(-1)[3] = float("nan")
    broken = write_model(tmp_path / "broken", tensors=tensors)
    with pytest.raises(AnybitError, match=f"{name}.*NaN"):
        recipes.run(broken, recipe_of("rtn", text), tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_full_disk_keeps_what_is_finished(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = journal.save_file, 0

    def full(*arguments: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(28, "No space left on device")
        real(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(journal, "save_file", full)
        with pytest.raises(journal.Unwritable, match=r"No space left.*goes on from it"):
            recipes.run(model, recipe_of("rtn", text), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert recipes.run(model, recipe_of("rtn", text), tmp_path / "out").resumed >= 3


def test_a_quantized_model_is_refused(model: Path, text: Path, tmp_path: Path) -> None:
    recipes.run(model, recipe_of("rtn", text), tmp_path / "out")
    with pytest.raises(RecipeError, match="quantized already"):
        recipes.run(tmp_path / "out", recipe_of("rtn", text), tmp_path / "again")
