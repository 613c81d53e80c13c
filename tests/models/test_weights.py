"""The store: lazy, sharded or not, quantized or not; and one sentence for whatever is wrong with a directory."""

import json

import pytest
import torch
from safetensors.torch import save_file

from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.models.plan import WeightRef
from anybit.models.weights import (
    INDEX,
    MemoryEntry,
    Overlay,
    WeightStore,
    check_finite,
    check_shapes,
    open_store,
    select_columns,
)
from anybit.tensors import QTensor, quantize

W = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def quantized(tmp_path):
    q = quantize(W, TensorFormat.parse("int4/g4+z"))
    save_file(
        {**{f"a.{part}": t for part, t in q.tensors().items()}, "n.weight": torch.ones(3)},
        tmp_path / "model.safetensors",
    )
    entry = {"format": "int4/g4+z", "shape": [6, 10]}
    (tmp_path / "anybit.json").write_text(json.dumps({"tensors": {"a.weight": entry}}))
    return tmp_path, q


def test_plain_tensors(tmp_path):
    save_file({"w": W, "v": W[0].bfloat16().clone()}, tmp_path / "model.safetensors")
    store = open_store(tmp_path)
    assert sorted(store.names()) == ["v", "w"] and "w" in store and "u" not in store
    assert store.shape("w") == (6, 10) and store.dtype("v") == torch.bfloat16 and store.nbytes("v") == 20
    assert torch.equal(store.get("w"), W)
    assert torch.equal(store.resolve(WeightRef("w", (2, 5))), W[2:5])
    with pytest.raises(CheckpointError, match="has no tensor 'u'"):
        store.get("u")


def test_quantized_tensors(quantized):
    path, q = quantized
    store = open_store(path)
    assert sorted(store.names()) == ["a.weight", "n.weight"]
    assert store.shape("a.weight") == (6, 10) and str(store.dtype("a.weight")) == "int4/g4+z"
    assert store.nbytes("a.weight") == q.nbytes
    assert store.stored("a.weight") == {"codes": "a.codes", "scale": "a.scale", "zero": "a.zero"}
    assert torch.equal(store.get("a.weight").dequantize(), q.dequantize())
    rows = store.resolve(WeightRef("a.weight", (1, 4)))
    assert isinstance(rows, QTensor) and torch.equal(rows.dequantize(), q.dequantize()[1:4])


def test_shards(tmp_path):
    parts = {"a": W, "b": W + 1, "c": W + 2}
    for i, (name, tensor) in enumerate(parts.items()):
        save_file({name: tensor}, tmp_path / f"s{i}.safetensors")
    index = {name: f"s{i}.safetensors" for i, name in enumerate(parts)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": index}))
    store = open_store(tmp_path)
    assert all(torch.equal(store.get(name), tensor) for name, tensor in parts.items())
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {**index, "d": "s0.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"s0.safetensors does not hold 'd'"):
        open_store(tmp_path)
    (tmp_path / "s1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the shard .*s1.safetensors is missing.*lists 3 shards"):
        open_store(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "../s0.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside the directory"):
        open_store(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weights": {}}))
    with pytest.raises(CheckpointError, match="has no weight_map"):
        open_store(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "x.ckpt"])
def test_pickles_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=rf"{name} is a pickle checkpoint.*refused; convert it to safetensors"):
        open_store(tmp_path)


def test_an_empty_directory(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither model.safetensors nor"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    "tensors, sentence",
    [
        ({"a.weight": {"format": "int4/g4+z"}}, "entry of 'a.weight' is malformed"),
        ({"a.weight": {"format": "int99", "shape": [6, 10]}}, "entry of 'a.weight' is malformed"),
        ({"b.weight": {"format": "int4/row", "shape": [6, 10]}}, "'b.weight' as quantized, but b.codes is not stored"),
    ],
)
def test_malformed_manifests(quantized, tensors, sentence):
    path, _ = quantized
    (path / "anybit.json").write_text(json.dumps({"tensors": tensors}))
    with pytest.raises(CheckpointError, match=sentence):
        open_store(path)


def test_parts_that_do_not_fit_their_format(quantized):
    path, _ = quantized
    entry = {"format": "int5/g4+z", "shape": [6, 10]}
    (path / "anybit.json").write_text(json.dumps({"tensors": {"a.weight": entry}}))
    with pytest.raises(CheckpointError, match=r"a.weight: the codes of a int5/g4.z tensor"):
        open_store(path).get("a.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_that_are_not_finite_are_found_when_asked(tmp_path, value, dtype):
    bad = W.clone().to(dtype)
    bad[2, 3] = bad[4, 4] = value
    save_file({"w": bad}, tmp_path / "model.safetensors")
    store = open_store(tmp_path)
    assert store.get("w").shape == (6, 10)
    with pytest.raises(CheckpointError, match="w holds 2 NaN or infinite values"):
        store.get("w", check=True)
    check_finite(torch.arange(3), "integers")


def test_shapes_are_checked(tmp_path):
    save_file({"w": W}, tmp_path / "model.safetensors")
    store = open_store(tmp_path)
    check_shapes(store, {"w": (6, 10)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"'w' has shape \[6, 10\], but config.json needs \[10, 6\]"):
        check_shapes(store, {"w": (10, 6)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'v' of shape \[3\]"):
        check_shapes(store, {"v": (3,)}, tmp_path)


def test_aliases(tmp_path):
    save_file({"w": W}, tmp_path / "model.safetensors")
    store = open_store(tmp_path, {"head": "w"})
    assert "head" in store and store.shape("head") == (6, 10) and store.names() == ["w"]
    assert torch.equal(store.resolve(WeightRef("head", (0, 2))), W[:2])


def test_overlay(quantized):
    path, q = quantized
    replaced = {}
    overlay = Overlay(open_store(path), replaced)
    assert torch.equal(overlay.resolve(WeightRef("a.weight")).dequantize(), q.dequantize())
    replaced["a.weight"] = W
    assert torch.equal(overlay.resolve(WeightRef("a.weight", (1, 3))), W[1:3])
    replaced["a.weight"] = quantize(W, TensorFormat.parse("int8/row"))
    got = overlay.resolve(WeightRef("a.weight", (1, 3)))
    assert torch.equal(got.dequantize(), replaced["a.weight"].dequantize()[1:3])


def test_a_tensor_in_memory_stands_for_one_in_a_file(tmp_path):
    save_file({"w": W, "v": W[0].clone()}, tmp_path / "model.safetensors")
    base = open_store(tmp_path)
    changed = (2 * W).bfloat16()
    store = WeightStore({**base.entries, "w": MemoryEntry(changed)}, aliases={"u": "w"})
    assert store.dtype("w") == torch.bfloat16 and store.shape("u") == (6, 10) and store.nbytes("w") == 120
    assert torch.equal(store.get("w"), changed) and torch.equal(store.get("v"), W[0])
    assert torch.equal(store.resolve(WeightRef("u", (2, 5))), changed[2:5])


@pytest.mark.parametrize("spec", ["int4/g4+z", "int8/row", "int3/tensor", "e2m1/g4:e4m3fn+t", "int4/b2x4", "int5/b3x*"])
def test_chosen_columns_are_those_of_the_matrix(spec):
    """Whole blocks of four, the last of which is short in the matrix and so not among them; any where a block has all columns."""
    q = quantize(W, TensorFormat.parse(spec))
    for columns in [[4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]] + ([[9, 2]] if q.format.block[1] == 0 else []):
        got = select_columns(q, torch.tensor(columns))
        assert got.shape == (6, len(columns))
        assert torch.equal(got.dequantize(), q.dequantize()[:, columns])
    if q.format.block[1]:
        with pytest.raises(CheckpointError, match="whole blocks of 4"):
            select_columns(q, torch.tensor([3, 4, 5, 6]))
