"""Our reader against the safetensors library, and damaged files byte by byte."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from anybit.errors import CheckpointError
from anybit.models.safetensors_file import DTYPES, read_header, write_file


@pytest.fixture
def tensors():
    made = {
        str(dtype): (torch.randn(7, 3) * 20).to(dtype)
        for dtype in DTYPES.values()
        if dtype not in (torch.bool, torch.uint8)
    }
    return made | {
        "bool": torch.rand(5) > 0.5,
        "u8": torch.arange(11, dtype=torch.uint8),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }


def same(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    )


def test_reads_what_the_library_writes_and_the_other_way(tensors, tmp_path):
    save_file(tensors, tmp_path / "a.safetensors")
    entries = read_header(tmp_path / "a.safetensors")
    assert entries.keys() == tensors.keys()
    assert all(same(entries[name].read(), value) for name, value in tensors.items())
    write_file(tmp_path / "b.safetensors", tensors)
    again = load_file(tmp_path / "b.safetensors")
    assert all(same(again[name], value) for name, value in tensors.items())
    assert not (tmp_path / "b.safetensors.part").exists()


def test_rows_are_slices(tensors, tmp_path):
    save_file(tensors, tmp_path / "a.safetensors")
    for name, entry in read_header(tmp_path / "a.safetensors").items():
        if tensors[name].ndim == 2 and len(tensors[name]):
            assert same(entry.read((2, 5)), tensors[name][2:5])
            assert entry.read((3, 3)).shape == (0, 3)
    with pytest.raises(CheckpointError, match="rows 5 to 8 are not within"):
        read_header(tmp_path / "a.safetensors")["torch.float32"].read((5, 8))


def test_reading_does_not_write_to_the_file(tmp_path):
    save_file({"x": torch.ones(4)}, tmp_path / "a.safetensors")
    read_header(tmp_path / "a.safetensors")["x"].read().zero_()
    assert read_header(tmp_path / "a.safetensors")["x"].read().tolist() == [1, 1, 1, 1]


def test_data_need_not_be_aligned(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    header += b" " * ((5 - len(header)) % 4)  # 8 + header is not a multiple of 4
    assert (8 + len(header)) % 4
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<3f", 1, 2, 3))
    assert read_header(tmp_path / "a.safetensors")["x"].read().tolist() == [1, 2, 3]


def test_every_truncation_is_found(tmp_path):
    save_file({"x": torch.ones(4)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    for length in range(len(data)):
        (tmp_path / "b.safetensors").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"b.safetensors is (truncated|not a safetensors file)"):
            read_header(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="is damaged: its tensors need"):
        read_header(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "header, sentence",
    [
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "of shape .2. and dtype F32 cannot be 4 bytes"),
        ({"x": {"dtype": "C64", "shape": [1], "data_offsets": [0, 4]}}, "has the dtype 'C64'; supported are F64"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "header entry of 'x' is malformed"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "header entry of 'x' is malformed"),
        ({"x": [1]}, "header entry of 'x' is malformed"),
        ([1], "header is not an object"),
    ],
)
def test_malformed_headers(tmp_path, header, sentence):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(CheckpointError, match=sentence):
        read_header(tmp_path / "a.safetensors")


def test_a_header_of_impossible_length_is_not_read(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match="its header would be 1152921504606846976 bytes long"):
        read_header(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"none.safetensors is missing"):
        read_header(tmp_path / "none.safetensors")
