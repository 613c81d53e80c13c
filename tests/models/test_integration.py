"""A quantized checkpoint, laid out by hand, must load through transformers and compute what its dequantized twin computes."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import anybit.models.integration  # noqa: F401 - registers the quantizer
from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.tensors import quantize

SIZES = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def checkpoint(model, directory, choose):
    """Write `model` with the weights for which choose(name) gives a spec quantized; returns its dequantized state."""
    model.save_pretrained(directory)
    (directory / "model.safetensors").unlink()
    stored, plain, formats = {}, {}, {}
    tied = model.config.tie_word_embeddings
    for name, w in model.state_dict().items():
        spec = choose(name)
        if tied and name == "lm_head.weight":
            continue
        plain[name] = w
        if spec is None:
            stored[name] = w.to(torch.bfloat16)
            plain[name] = stored[name].float()
            continue
        q = quantize(w, TensorFormat.parse(spec))
        formats[name] = spec
        stored |= {f"{name.removesuffix('.weight')}.{part}": t.contiguous() for part, t in q.tensors().items()}
        plain[name] = q.dequantize()
    if tied:
        plain["lm_head.weight"] = plain["model.embed_tokens.weight"]
    save_file(stored, str(directory / "model.safetensors"), metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "anybit", "formats": formats}
    (directory / "config.json").write_text(json.dumps(config))
    return plain


def chooser(linear, embedding=None, head=None):
    def choose(name):
        if "proj" in name and name.endswith("weight"):
            return linear
        return embedding if "embed" in name else head if "lm_head" in name else None

    return choose


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "choose",
    [chooser("int4/g16"), chooser("int3/g32+z", "int8/row"), chooser("nvfp4", "int6/g32", "int8/row")],
    ids=["linears", "zeros+embedding", "nvfp4+all"],
)
def test_from_pretrained_computes_what_the_dequantized_model_computes(tmp_path, choose, tied):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    plain = checkpoint(model, tmp_path, choose)
    model.load_state_dict(plain)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 90, (2, 12))
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=2e-5, rtol=1e-4)
    assert loaded.generate(ids[:1], max_new_tokens=4, do_sample=False).shape == (1, 16)


def test_biases_and_half_precision_compute(tmp_path):
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p)
    plain = checkpoint(model, tmp_path, chooser("int8/g16"))
    model.load_state_dict(plain)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.model.layers[0].self_attn.q_proj.scale.dtype == torch.float16, (
        "scales keep the dtype they are stored in"
    )
    ids = torch.randint(0, 90, (1, 12))
    with torch.no_grad():
        got, want = loaded(ids).logits.float(), model(ids).logits
    # two layers of bfloat16 arithmetic, each rounding to 8 bits
    assert (got - want).norm() / want.norm() < 0.05


def test_refuses_a_config_that_does_not_fit(tmp_path):
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    checkpoint(model, tmp_path, chooser("int4/g16"))
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["formats"]["model.layers.9.mlp.up_proj.weight"] = "int4/g16"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has no model\.layers\.9\.mlp\.up_proj"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    config["quantization_config"]["formats"] = {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="lists no formats"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
