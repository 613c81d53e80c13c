"""A quantized module saved and loaded computes the same bits; damaged or foreign files are refused."""

import json

import pytest
import torch
from torch import nn

from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.models.module import quantize_module
from anybit.models.module_state import load_module, save_module


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first = nn.Linear(8, 8)
        self.second = self.first  # one layer under two names
        self.words = nn.Embedding(10, 8)

    def forward(self, x, ids):
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.second(torch.relu(self.first(h))) + self.words(ids)


def quantized():
    torch.manual_seed(0)
    model = Net().eval()
    quantize_module(model, lambda name, layer: TensorFormat.parse("int4/g8" if name != "words" else "int8/row"))
    return model


INPUT = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 7]))


def test_round_trip_is_bit_identical(tmp_path):
    model = quantized()
    save_module(model, tmp_path / "net")
    fresh = Net().eval()
    load_module(fresh, tmp_path / "net")
    assert torch.equal(fresh(*INPUT), model(*INPUT))
    assert fresh.first is fresh.second
    assert str(fresh.conv.format) == "int4/g8"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net"]


def test_existing_output_is_kept_unless_told(tmp_path):
    save_module(quantized(), tmp_path / "net")
    with pytest.raises(CheckpointError, match="exists; choose another name"):
        save_module(quantized(), tmp_path / "net")
    save_module(quantized(), tmp_path / "net", overwrite=True)


def test_refuses_damaged_missing_and_foreign_files(tmp_path):
    path = tmp_path / "net"
    with pytest.raises(CheckpointError, match=r"anybit\.json is missing"):
        load_module(Net(), path)
    save_module(quantized(), path)
    with pytest.raises(CheckpointError, match="lists 'conv' as quantized; this Linear has no such layer"):
        load_module(nn.Linear(3, 3), path)
    blob = bytearray((path / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (path / "model.safetensors").write_bytes(blob)
    with pytest.raises(CheckpointError, match="does not have the sha256"):
        load_module(Net(), path)
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_module(Net(), path)


def test_the_manifest_names_every_format(tmp_path):
    save_module(quantized(), tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "anybit.json").read_text())
    assert manifest["formats"] == {"conv": "int4/g8", "first": "int4/g8", "second": "int4/g8", "words": "int8/row"}


def test_notes_are_kept(tmp_path):
    save_module(quantized(), tmp_path / "net", notes={"member": "x", "n": 3})
    assert json.loads((tmp_path / "net" / "anybit.json").read_text())["notes"] == {"member": "x", "n": 3}
