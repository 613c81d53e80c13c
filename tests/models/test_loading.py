"""`load` on good, tied and damaged directories; perplexity of a real model equal to the published figure."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from anybit import models
from anybit.errors import CheckpointError, UnsupportedModelError
from anybit.models import loading
from anybit.models.evaluation import cut, perplexity


@pytest.fixture
def copied(tiny_model, tmp_path):
    def copy(name):
        return shutil.copytree(tiny_model(name)[1], tmp_path / "model")

    return copy


def rewrite(path, change):
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def configure(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


def test_parameters_and_bits(tiny_model):
    reference, path = tiny_model("llama_biases_tied")
    model = models.load(path)
    assert model.parameters == sum(p.numel() for p in reference.parameters())
    assert model.bits_per_weight == 32 and model.nbytes == 4 * model.parameters


def test_a_tied_head_answers_to_both_names(copied):
    path = copied("llama_biases_tied")
    model = models.load(path)
    assert model.weights.get("lm_head.weight").shape == (131, 48)
    expected = models.TorchExecutor(model.plan, model.weights).forward([5, 6, 7])
    rewrite(path, lambda t: t.__setitem__("lm_head.weight", t.pop("model.embed_tokens.weight")))
    again = models.load(path)
    assert torch.allclose(models.TorchExecutor(again.plan, again.weights).forward([5, 6, 7]), expected, atol=1e-5)


def test_wrong_or_missing_tensors(copied):
    path = copied("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(path, lambda t: t.__setitem__(name, torch.zeros(76, 47)))
    with pytest.raises(
        CheckpointError, match=r"up_proj.weight' has shape \[76, 47\], but config.json needs \[76, 48\]"
    ):
        models.load(path)
    rewrite(path, lambda t: t.pop(name))
    with pytest.raises(CheckpointError, match=rf"lacks the tensor '{name}' of shape \[76, 48\]"):
        models.load(path)


def test_truncated_weights(copied):
    path = copied("llama") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated: its tensors need"):
        models.load(path.parent)


def test_configs(copied, tmp_path):
    path = copied("llama")
    configure(path, model_type="mamba")
    with pytest.raises(
        UnsupportedModelError, match=r"architecture 'mamba' is not supported; supported are gemma2.*qwen3"
    ):
        models.load(path)
    configure(path, model_type="llama", num_hidden_layers="three")
    with pytest.raises(UnsupportedModelError, match="num_hidden_layers must be an integer of at least 1; got 'three'"):
        models.load(path)
    (path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        models.load(path)


def test_checkpoints_of_other_tools_are_refused(copied):
    path = copied("llama")
    configure(path, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedModelError, match="was quantized by 'gptq', which anybit does not read"):
        models.load(path)
    configure(path, quantization_config={"quant_method": "anybit"})
    with pytest.raises(CheckpointError, match=r"anybit.json is missing: it describes the quantized tensors"):
        models.load(path)


def test_verification_on_request(copied, tmp_path):
    path = copied("llama")
    with models.CheckpointWriter(tmp_path / "out", path) as writer:
        for name in models.load(path).plan.weight_names():
            writer.put(name, models.load(path).weights.get(name))
        writer.finish()
    assert models.load(tmp_path / "out", verify=True).parameters == models.load(path).parameters
    data = bytearray((tmp_path / "out/model.safetensors").read_bytes())
    data[-1] ^= 255
    (tmp_path / "out/model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="its sha256 differs"):
        models.load(tmp_path / "out", verify=True)


def test_finding(tmp_path, monkeypatch):
    (tmp_path / "zoo/tiny").mkdir(parents=True)
    (tmp_path / "zoo/tiny/config.json").write_text("{}")
    monkeypatch.setattr(loading, "BUNDLE", tmp_path / "zoo")
    assert loading.bundled() == ["tiny"] and loading.find("tiny") == tmp_path / "zoo/tiny"
    assert loading.find(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match=r"no model directory 'tony'.*bundled: tiny"):
        loading.find("tony")
    with pytest.raises(CheckpointError, match="is a file; a model is a directory"):
        loading.find(tmp_path / "zoo/tiny/config.json")


def test_stories260k_scores_what_was_published(shared_data):
    """The first 20 windows against transformers' own loss on the same tokens; the published figure of them all is below."""
    from transformers import AutoModelForCausalLM

    path = shared_data / "stories260k"
    model = models.load(path)
    text = (shared_data / "text/tinystories_train_excerpt.txt").read_text("utf-8")
    windows = cut(model.tokenizer.encode(text), 512, model.tokenizer.bos)[:20]
    got = perplexity(models.TorchExecutor(model.plan, model.weights), windows)
    reference = AutoModelForCausalLM.from_pretrained(path).eval()
    total = count = 0.0
    with torch.no_grad():
        for window in windows:
            ids = torch.tensor([window])
            logits = reference(ids).logits[0, :-1].double()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            count += len(window) - 1
    assert got.tokens == count
    assert got.nll == pytest.approx(total / count, rel=1e-5)


@pytest.mark.slow
def test_stories260k_whole_text(shared_data):
    model = models.load(shared_data / "stories260k")
    text = (shared_data / "text/tinystories_train_excerpt.txt").read_text("utf-8")
    windows = cut(model.tokenizer.encode(text), 512, model.tokenizer.bos)
    assert perplexity(models.TorchExecutor(model.plan, model.weights), windows).perplexity == pytest.approx(
        5.037, rel=1e-3
    )
