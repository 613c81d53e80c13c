"""Checkpoints: what is put is what is read, the same job gives the same bytes, and nothing half-written is ever seen."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch

from anybit import models
from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.models.checkpoint import CheckpointWriter, sha256, verify
from anybit.tensors import QTensor, quantize

FORMATS = ["int4/g16", "int3/g32+z", "e2m1/g16:e4m3fn+t", "int8/row", "nf4/g24"]


def write(source, out, **options):
    """Quantize every matrix of a model, formats in turn; returns what was put."""
    model = models.load(source)
    put = {}
    with CheckpointWriter(out, source, **options) as writer:
        for i, name in enumerate(model.plan.weight_names()):
            value = model.weights.get(name)
            if value.ndim == 2:
                value = quantize(value.float(), TensorFormat.parse(FORMATS[i % len(FORMATS)]))
            put[name] = value
            writer.put(name, value)
        writer.finish({"method": "rtn"}, {"source": "test"})
    return put


def digest(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("shard_bytes", [1 << 30, 9000])
def test_reads_back_what_was_put(tiny_model, tmp_path, shard_bytes):
    source = tiny_model("llama_biases_tied")[1]
    put = write(source, tmp_path / "out", shard_bytes=shard_bytes)
    model = models.load(tmp_path / "out")
    for name, value in put.items():
        got = model.weights.get(name)
        if isinstance(value, QTensor):
            assert isinstance(got, QTensor) and got.format == value.format and got.shape == value.shape
            for part, tensor in value.tensors().items():
                assert torch.equal(
                    got.tensors()[part].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
                )
        else:
            assert torch.equal(got, value)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) == 1 if shard_bytes > 1 << 20 else len(shards) > 3
    assert verify(tmp_path / "out") == len(model.weights.entries)
    stored = sum(
        p.numel() * p.element_size()
        for v in put.values()
        for p in (v.tensors().values() if isinstance(v, QTensor) else [v])
    )
    assert model.nbytes == stored
    assert model.bits_per_weight == pytest.approx(8 * stored / sum(torch.Size(v.shape).numel() for v in put.values()))


def test_config_names_the_format_of_each_module(tiny_model, tmp_path):
    source = tiny_model("qwen2")[1]
    write(source, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    formats = config.pop("quantization_config")["formats"]
    assert config == json.loads((source / "config.json").read_text())
    manifest = json.loads((tmp_path / "out/anybit.json").read_text())
    assert formats == {name: entry["format"] for name, entry in manifest["tensors"].items()}
    assert manifest["recipe"] == {"method": "rtn"} and manifest["provenance"] == {"source": "test"}


def test_another_config_takes_the_place_of_the_sources(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    config = json.loads((source / "config.json").read_text())
    write(source, tmp_path / "out", config={**config, "note": [1, 2], "quantization_config": {"quant_method": "x"}})
    stored = json.loads((tmp_path / "out/config.json").read_text())
    assert stored["note"] == [1, 2] and stored["quantization_config"]["quant_method"] == "anybit"


def test_the_same_job_gives_the_same_bytes(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    write(source, tmp_path / "a", shard_bytes=9000)
    write(source, tmp_path / "b", shard_bytes=9000)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_logits_of_the_checkpoint_are_those_of_its_dequantized_weights(tiny_model, tmp_path):
    reference, source = tiny_model("phi3")
    put = write(source, tmp_path / "out")
    original = {name: value.clone() for name, value in reference.state_dict().items()}
    try:
        reference.load_state_dict(
            {n: v.dequantize() if isinstance(v, QTensor) else v for n, v in put.items()}, strict=False
        )
        ids = torch.arange(3, 33)
        with torch.no_grad():
            expected = reference(ids[None]).logits[0]
    finally:
        reference.load_state_dict(original)
    model = models.load(tmp_path / "out")
    got = models.TorchExecutor(model.plan, model.weights).forward(ids, "all")
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_changed_byte_is_found(tiny_model, tmp_path):
    write(tiny_model("llama")[1], tmp_path / "out")
    path = tmp_path / "out/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is damaged: its sha256 differs"):
        verify(tmp_path / "out")


def test_sha256_is_that_of_the_bytes():
    x = torch.randn(3, 5).bfloat16()
    assert sha256(x.T) == hashlib.sha256(x.T.contiguous().view(torch.int16).numpy().tobytes()).hexdigest()


def test_refuses_an_output_that_exists_and_replaces_on_request(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    write(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"out exists; choose another output or pass --overwrite"):
        CheckpointWriter(tmp_path / "out", source)
    before = digest(tmp_path / "out")
    with CheckpointWriter(tmp_path / "out", source, overwrite=True) as writer:
        writer.put("a", torch.zeros(2))  # never finished
    assert digest(tmp_path / "out") == before
    write(source, tmp_path / "out", overwrite=True)
    assert digest(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_never_replaces_what_is_no_model_or_the_source(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="is no model directory"):
        CheckpointWriter(tmp_path / "home", source, overwrite=True)
    with pytest.raises(CheckpointError, match="is the source itself"):
        CheckpointWriter(source, source, overwrite=True)


def test_refuses_a_name_put_twice_and_a_second_writer(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    with CheckpointWriter(tmp_path / "out", source) as writer:
        writer.put("a", torch.zeros(2))
        with pytest.raises(CheckpointError, match="'a' was written twice"):
            writer.put("a", torch.zeros(2))
        with pytest.raises(CheckpointError, match="another process is writing"):
            CheckpointWriter(tmp_path / "out", source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_refuses_an_unwritable_place(tiny_model, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(CheckpointError, match="no permission to write"):
        CheckpointWriter(tmp_path / "locked/out", tiny_model("llama")[1])


def test_a_killed_writer_leaves_nothing_under_the_name_and_the_next_one_succeeds(tiny_model, tmp_path):
    source = tiny_model("llama")[1]
    code = (
        "import os, torch, pathlib, sys\n"
        "from anybit.models.checkpoint import CheckpointWriter\n"
        "w = CheckpointWriter(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), shard_bytes=64)\n"
        "[w.put(f't{i}', torch.randn(32)) for i in range(5)]\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "out", source], check=False)
    assert done.returncode == -9 and not (tmp_path / "out").exists()
    write(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert verify(tmp_path / "out") > 0
