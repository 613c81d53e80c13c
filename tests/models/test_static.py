"""Static scales of a checkpoint: read back as written, onto the operators that use them, and refused where they cannot be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anybit import models
from anybit.errors import AnybitError, CheckpointError
from anybit.formats import TensorFormat
from anybit.models import CheckpointWriter, TorchExecutor, slices, static
from anybit.ops import StaticFormat
from anybit.runtime.executor import NativeExecutor
from anybit.tensors import quantize

INT8 = StaticFormat.parse("int8/static")
IDS = list(range(3, 40))


def write(source: Path, out: Path, act: StaticFormat = INT8, scale: float = 0.05) -> dict[str, float]:
    """Every matrix in int8 rows, each of its own scale; returns the scales."""
    model = models.load(source)
    scales: dict[str, float] = {}
    looked_up = {op.weights[0].name for op in model.plan.ops if op.kind == "embedding"}
    multiplied = {op.weights[0].name for op in model.plan.ops if op.kind == "linear"}
    with CheckpointWriter(out, source, act=act) as writer:
        for number, name in enumerate(model.plan.weight_names()):
            value = model.weights.get(name)
            if value.ndim == 2 and name in looked_up | multiplied:
                value = quantize(value.float(), TensorFormat.parse("int8/row"))
            if name in multiplied:
                scales[name] = scale * (1 + number / 100)
            writer.put(name, value, None, scales.get(name))
        writer.finish()
    return scales


@pytest.fixture(params=["llama", "qwen3_tied", "phi3"])
def made(request, tiny_model, tmp_path):
    """(folder, scales): plain, tied, and with fused matrices that several operators read."""
    out = tmp_path / "out"
    return out, write(tiny_model(request.param)[1], out)


def test_scales_lie_beside_the_weights_and_come_back_on_the_operators(made):
    folder, scales = made
    model = models.load(folder, verify=True)
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["act"] == "int8/static"
    assert static.format_of(model.plan) == INT8
    linear = [op for op in model.plan.ops if op.kind == "linear"]
    for op in linear:
        got = static.of(op, INT8)
        assert got.scale == pytest.approx(scales[op.weights[0].name], rel=1e-6)
    assert not any("input_scale" in name for name in model.weights.names())
    stored = load_file(folder / "model.safetensors")
    assert sum(name.endswith(".input_scale") for name in stored) == len(scales)
    assert model.nbytes == sum(t.nbytes for t in stored.values())


def test_both_executors_round_by_them(made):
    model = models.load(made[0])
    reference = TorchExecutor(model.plan, model.weights, act=INT8).forward(IDS, "all")
    native = NativeExecutor(model.plan, model.weights, act="int8/static", kv="fp32")
    # a number beside the middle of two codes may go either way behind sums in another order: a step of one input
    assert (native.forward(IDS, "all") - reference).norm() < 0.02 * reference.norm()
    assert torch.equal(NativeExecutor(model.plan, model.weights, kv="fp32").forward(IDS), native_again(model))
    dynamic = TorchExecutor(model.plan, model.weights, act=TensorFormat.parse("int8/row")).forward(IDS, "all")
    assert not torch.equal(dynamic, reference)


def native_again(model):
    return NativeExecutor(model.plan, model.weights, act=INT8, kv="fp32").forward(IDS)


def test_a_prompt_in_pieces_gives_the_same_codes(made):
    """Nothing in a token's rounding depends on the tokens beside it: a prompt read at once, in chunks, or a token at a time."""
    model = models.load(made[0])

    def logits(chunk: int, threads: int) -> torch.Tensor:
        run = NativeExecutor(model.plan, model.weights, kv="fp32", chunk=chunk, threads=threads)
        return run.forward(IDS, "all")

    whole = logits(64, 1)
    assert (logits(5, 2) - whole).norm() < 0.02 * whole.norm()
    one = NativeExecutor(model.plan, model.weights, kv="fp32", threads=1)
    assert (torch.cat([one.forward([i]) for i in IDS]) - whole).norm() < 0.02 * whole.norm()


def test_wide_scales_saturate(tiny_model, tmp_path):
    write(tiny_model("llama")[1], tmp_path / "narrow", scale=1e-4)
    model = models.load(tmp_path / "narrow")
    reference = TorchExecutor(model.plan, model.weights, act=INT8).forward(IDS, "all")
    native = NativeExecutor(model.plan, model.weights, kv="fp32").forward(IDS, "all")
    exact = TorchExecutor(model.plan, model.weights).forward(IDS, "all")
    assert (native - reference).norm() < 0.02 * reference.norm()
    assert (reference - exact).norm() > 0.5 * exact.norm()


def test_other_elements_run_on_the_torch_executor(tiny_model, tmp_path):
    e4m3 = StaticFormat.parse("e4m3fn/static")
    write(tiny_model("llama")[1], tmp_path / "out", e4m3, 0.1)
    model = models.load(tmp_path / "out")
    tensor = TensorFormat.parse("e4m3fn/tensor")
    got, dynamic, exact = (
        TorchExecutor(model.plan, model.weights, act=act).forward(IDS, "all") for act in (e4m3, tensor, None)
    )
    assert 0 < (got - exact).norm() < 1.5 * (dynamic - exact).norm()
    with pytest.raises(AnybitError, match="run e4m3fn/static on the torch executor"):
        NativeExecutor(model.plan, model.weights)
    with pytest.raises(AnybitError, match=r"no scale for int8/static activations \(only e4m3fn/static\)"):
        NativeExecutor(model.plan, model.weights, act="int8/static")


def test_a_model_without_them_says_how_to_make_them(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    write(source, tmp_path / "out")
    plan = models.load(source).plan
    assert static.format_of(plan) is None
    model = models.load(tmp_path / "out")
    for executor in (TorchExecutor, NativeExecutor):
        with pytest.raises(
            AnybitError, match=r"has no scale for int8/static activations \(none\); make a checkpoint .*--activations"
        ):
            executor(plan, model.weights, act=INT8)


def test_fewer_bits_keep_them(tiny_model, tmp_path):
    write(tiny_model("llama")[1], tmp_path / "out")
    model = models.load(tmp_path / "out")
    cut = slices.at_bits(model, 6)
    assert static.format_of(cut.plan) == INT8
    assert model.nbytes > cut.nbytes
    scales = [name for name in model.weights.entries if name.endswith(".input_scale")]
    assert scales and all(name in cut.weights.entries for name in scales)
    NativeExecutor(cut.plan, cut.weights).forward(IDS)


ONE = "model.layers.1.mlp.down_proj.input_scale"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(ONE),
            f"lacks '{ONE}', the static scale of the activations of model.layers.1.mlp.down_proj.weight",
        ),
        (lambda t: t.update({ONE: torch.tensor(0.0)}), f"'{ONE}' must be finite and above 0; it is 0.0"),
        (lambda t: t.update({ONE: torch.tensor(-1.0)}), "above 0; it is -1.0"),
        (lambda t: t.update({ONE: torch.tensor(float("nan"))}), "it is nan"),
        (lambda t: t.update({ONE: torch.tensor(float("inf"))}), "it is inf"),
        (lambda t: t.update({ONE: torch.ones(4)}), r"must be one float32 number; it is torch.float32 of shape \[4\]"),
        (lambda t: t.update({ONE: torch.tensor(1.0).bfloat16()}), "must be one float32 number; it is torch.bfloat16"),
        (
            lambda t: t.update({"model.layers.9.mlp.down_proj.input_scale": torch.tensor(1.0)}),
            "'model.layers.9.mlp.down_proj.input_scale' belongs to no quantized matrix",
        ),
        (
            lambda t: t.update({"model.embed_tokens.input_scale": torch.tensor(1.0)}),
            "'model.embed_tokens.input_scale' belongs to no quantized matrix",
        ),
    ],
)
def test_bad_scales_are_refused_by_name(tiny_model, tmp_path, change, message):
    write(tiny_model("llama")[1], tmp_path / "out")
    tensors = load_file(tmp_path / "out/model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as caught:
        models.load(tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["int99/static", "nf4/static"])
def test_a_format_that_is_none_is_refused(tiny_model, tmp_path, spec):
    write(tiny_model("llama")[1], tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    config["quantization_config"]["act"] = spec
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        models.load(tmp_path / "out")


@pytest.mark.parametrize("name", ["llama", "qwen3_tied"])
def test_transformers_rounds_by_them(tiny_model, tmp_path, name):
    from transformers import AutoModelForCausalLM

    write(tiny_model(name)[1], tmp_path / "out")
    model = models.load(tmp_path / "out")
    wanted = TorchExecutor(model.plan, model.weights, act=INT8).forward(IDS, "all")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        got = theirs(torch.tensor([IDS])).logits[0]
    assert (got - wanted).norm() < 0.02 * wanted.norm()
    exact = TorchExecutor(model.plan, model.weights).forward(IDS, "all")
    assert (got - wanted).norm() < 0.3 * (exact - wanted).norm()
