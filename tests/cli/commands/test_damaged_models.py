"""A damaged or untrusted checkpoint: exit code 2, one sentence that names the culprit, and nothing written."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file


def shard(folder) -> None:
    """Split model.safetensors in two with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, members in parts.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def missing_shard(folder) -> str:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return "model-00002-of-00002.safetensors"


def truncated_shard(folder) -> str:
    shard(folder)
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "model-00001-of-00002.safetensors"


def huge_header(folder) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])
    return "model.safetensors"


def wrong_shape(folder) -> str:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(10, 128, dtype=torch.bfloat16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return "model.layers.1.mlp.up_proj.weight"


def missing_tensor(folder) -> str:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return "model.norm.weight"


def unknown_architecture(folder) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": ["BlimpForCausalLM"], "model_type": "blimp"})
    )
    return "blimp"


def pickle_checkpoint(folder) -> str:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    return "pytorch_model.bin"


def no_config(folder) -> str:
    (folder / "config.json").unlink()
    return "config.json"


def broken_config(folder) -> str:
    (folder / "config.json").write_text("{")
    return "config.json"


DAMAGES = [
    missing_shard,
    truncated_shard,
    huge_header,
    wrong_shape,
    missing_tensor,
    unknown_architecture,
    pickle_checkpoint,
    no_config,
    broken_config,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("command", ["eval", "quantize"])
def test_refused(damage, command, tiny, tmp_path, anybit):
    culprit = damage(tiny)
    out = tmp_path / "out"
    arguments = (
        ["eval", tiny, "--executor", "torch"] if command == "eval" else ["quantize", tiny, out, "--weights", "int4/g64"]
    )
    done = anybit(*arguments)
    assert (done.code, done.out) == (2, "")
    assert culprit in done.err.lower()
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]
