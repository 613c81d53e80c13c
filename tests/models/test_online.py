"""Online rotations in a plan: equal to folding them, in both executors; what config.json may say of them."""

from dataclasses import replace

import pytest
import torch
from tests.models.conftest import MODELS

from anybit import models
from anybit.errors import CheckpointError
from anybit.models import TorchExecutor, online
from anybit.models.online import Affine, KeyOrder, Online, Split
from anybit.models.rewriting import Rewrite
from anybit.runtime.executor import NativeExecutor
from anybit.transforms.hadamard import Rotation, block_size

IDS = [3, 90, 17, 17, 64, 5, 121, 44, 8, 30, 77, 12]


def rotated(model, seed=4):
    """The inputs of every linear but a tied head rotated online, its columns beforehand."""
    rewrite, made = Rewrite(model.weights), []
    tables = {op.weights[0].name for op in model.plan.ops if op.kind == "embedding"}
    for op in model.plan.ops:
        if op.kind != "linear" or op.weights[0].name in tables:
            continue
        ref, width = op.weights[0], model.plan.buffers[op.inputs[0]]
        rotation = Rotation(block_size(width), seed)
        rewrite.turn(ref.name, 1, rotation, ref.rows)
        made.append(Online(rotation, before=(ref.name,)))
    merged: dict[Rotation, tuple[str, ...]] = {}
    for each in made:
        merged[each.rotation] = tuple(dict.fromkeys((*merged.get(each.rotation, ()), *each.before)))
    records = [Online(rotation, before=names) for rotation, names in merged.items()]
    return replace(model, plan=online.insert(model.plan, records), weights=rewrite.store()), records


@pytest.mark.parametrize("name", MODELS)
def test_rotated_inputs_and_columns_cancel(tiny_model, name):
    model = models.load(tiny_model(name)[1])
    changed, _ = rotated(model)
    before = TorchExecutor(model.plan, model.weights).forward(IDS, "all")
    after = TorchExecutor(changed.plan, changed.weights).forward(IDS, "all")
    assert (after - before).norm() <= 1e-5 * before.norm()


@pytest.mark.parametrize("name", ["llama", "phi3", "gemma3", "qwen3_tied"])
def test_the_native_engine_rotates_too(tiny_model, name):
    model = models.load(tiny_model(name)[1])
    changed, _ = rotated(model)
    wanted = TorchExecutor(model.plan, model.weights).forward(IDS, "all")
    got = NativeExecutor(changed.plan, changed.weights, act=None, kv="fp32").forward(IDS, "all")
    assert (got - wanted).norm() <= 1e-5 * wanted.norm()


def test_readers_of_one_value_share_an_operator_and_blocks_keep_their_bounds(tiny_model):
    model = models.load(tiny_model("llama")[1])
    plan = rotated(model)[0].plan
    for (a, b), (c, d) in zip(plan.blocks, model.plan.blocks, strict=True):
        kinds = [op.kind for op in plan.ops[a:b]]
        assert kinds.count("hadamard") == 4  # q k v, o, gate up, down
        assert [k for k in kinds if k != "hadamard"] == [op.kind for op in model.plan.ops[c:d]]


def test_there_and_back_through_json(tiny_model):
    _, records = rotated(models.load(tiny_model("llama")[1]))
    records += [Online(Rotation(4), after=("model.embed_tokens.weight",), inverse=True)]
    records += [KeyOrder(1, True, ((2, 0, 1), (0, 1, 2))), KeyOrder(0, False, ((1, 0), (0, 1)))]
    records += [Affine(32, 8, True, ("model.layers.0.mlp.down_proj.weight",)), Affine(4, 4, False, ("a", "b"))]
    assert online.read({"online": [each.to_json() for each in records]}) == records
    assert online.read({}) == []


def test_a_rotation_and_its_inverse_cancel(tiny_model):
    model = models.load(tiny_model("qwen2")[1])
    at = ("model.embed_tokens.weight",)
    plan = online.insert(
        model.plan, [Online(Rotation(16, 1), after=at), Online(Rotation(16, 1), after=at, inverse=True)]
    )
    before = TorchExecutor(model.plan, model.weights).forward(IDS, "all")
    after = TorchExecutor(plan, model.weights).forward(IDS, "all")
    assert (after - before).norm() <= 1e-5 * before.norm() and not torch.equal(after, before)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"transform": "fourier"}, "'fourier', which is not known"),
        ({"transform": "hadamard", "block": 9, "seed": 1, "inverse": False, "before": [], "after": []}, "malformed"),
        ({"transform": "hadamard", "block": 8}, "malformed"),
        ({"transform": "split", "columns": [], "weights": []}, "malformed"),
        ({"transform": "block_affine", "block": 8, "shared": 2, "clip": True, "before": []}, "malformed"),
        ({"transform": "key_order", "layer": 0, "pairs": True, "orders": [[0, 0]]}, "malformed"),
        ({"transform": "block_affine", "block": 0, "shared": 2, "clip": True, "before": ["a"]}, "malformed"),
        ({"transform": "split", "columns": [2, 2], "weights": []}, "malformed"),
    ],
)
def test_bad_entries_are_refused(entry, message):
    with pytest.raises(CheckpointError, match=message):
        online.read({"online": [entry]})


def test_a_transform_without_its_place_is_refused(tiny_model):
    plan = models.load(tiny_model("llama")[1]).plan
    with pytest.raises(CheckpointError, match="'nowhere'"):
        online.insert(plan, [Online(Rotation(4), before=("nowhere",))])
    with pytest.raises(CheckpointError, match="width is 48"):
        online.insert(plan, [Online(Rotation(32), before=("model.layers.0.self_attn.q_proj.weight",))])
    with pytest.raises(CheckpointError, match="blocks of 32 with a factor of 8, but its width is 76"):
        online.insert(plan, [Affine(32, 8, False, ("model.layers.0.mlp.down_proj.weight",))])
    with pytest.raises(CheckpointError, match="an order of 3 pairs; RoPE turns 4"):
        online.insert(plan, [KeyOrder(0, True, ((0, 1, 2), (0, 1, 2)))])
    with pytest.raises(CheckpointError, match="an order of 3 channels; a head has 8"):
        online.insert(plan, [KeyOrder(0, False, ((0, 1, 2), (0, 1, 2)))])
    with pytest.raises(CheckpointError, match="layer 9 for 1 heads; the model has 3 layers of 2"):
        online.insert(plan, [KeyOrder(9, False, ((0, 1, 2),))])
    down, up = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("down", "up"))
    with pytest.raises(CheckpointError, match="splits column 76"):
        online.insert(plan, [Split((3, 76), (down,))])
    with pytest.raises(CheckpointError, match="read another value"):
        online.insert(plan, [Split((3,), (down, up))])
