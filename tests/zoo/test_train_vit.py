"""The script of `vit` repeats itself bit by bit, interrupted or not, and the run whose weights are bundled; its start and its teacher."""

from dataclasses import replace

import pytest
import torch

from anybit.zoo import train_vit
from anybit.zoo.architectures.resnet import ResNet
from anybit.zoo.architectures.vit import VisionTransformer
from anybit.zoo.train_vit import DEFAULTS, OFFSETS, Teacher, patches, start, window


@pytest.fixture(autouse=True)
def _teacher(any_teacher):
    any_teacher(train_vit)


def test_an_interrupted_run_ends_in_the_same_bits(small_cifar, repeats):
    losses = repeats(train_vit, "--batch", "4")
    assert len(set(losses)) == 3


def test_in_bfloat16(small_cifar, in_bfloat16):
    in_bfloat16(train_vit, "--batch", "8")


def test_only_the_member_is_exported(small_cifar, tmp_path):
    from safetensors.torch import load_file

    train_vit.main(["--out", str(tmp_path), "--steps", "1", "--warmup", "1", "--batch", "2"])
    assert set(load_file(tmp_path / "model.safetensors")) == set(VisionTransformer().state_dict())


def test_windows_grow():
    options = replace(DEFAULTS, steps=100, batch=3)
    assert [window(step, options) for step in (0, 41, 42, 74, 75, 99)] == [(4, 2)] * 2 + [(6, 1)] * 2 + [(8, 1)] * 2
    for step, (rows, side) in {0: (6, 4), 50: (3, 6), 99: (3, 8)}.items():
        at = patches(step, options)
        assert at.shape == (rows, side * side)
        y, x = at // 8, at % 8
        assert (y.amax(1) - y.amin(1) == side - 1).all() and (x.amax(1) - x.amin(1) == side - 1).all()
        assert all(len(set(row)) == side * side for row in at.tolist())
    assert torch.equal(patches(99, options), torch.arange(64).expand(3, 64))


@torch.no_grad()
def test_heads_look_at_neighbours_to_begin_with():
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.randn(64, 3, 16, 16), scale_factor=2.0)
    model = VisionTransformer()
    start(model, images)
    h = model.tokens(images)
    cells = torch.nn.functional.unfold(images, 4, stride=4).transpose(1, 2).reshape(-1, 48)
    content = (cells @ model.embed.weight.flatten(1).T)[:, 32:]
    assert torch.linalg.matrix_rank(content, rtol=1e-3) <= 48
    y, x = torch.arange(64) // 8, torch.arange(64) % 8
    head = 0
    for block in model.blocks:
        assert torch.equal(block(h), h)  # blocks add nothing yet
        q, k = (f(block.norm1(h)).unflatten(-1, (3, 64)).transpose(1, 2) for f in (block.q, block.k))
        seen = (q @ k.transpose(-1, -2) / 8).softmax(-1)
        for i in range(3):
            dy, dx = OFFSETS[head % len(OFFSETS)]
            head += 1
            inside = (y + dy >= 0) & (y + dy < 8) & (x + dx >= 0) & (x + dx < 8)
            wanted = (8 * (y + dy) + x + dx)[inside]
            there = seen[:, i][:, inside].gather(-1, wanted.expand(64, -1)[..., None])
            assert there.mean() > 0.5


def test_the_teacher_speaks_of_patches():
    torch.manual_seed(0)
    network = ResNet(20).eval()
    x = torch.randn(16, 3, 32, 32)
    stages, logits = Teacher(network, x)(x)
    assert [list(s.shape) for s in stages] == [[16, 64, 256], [16, 64, 128], [16, 64, 64]]
    with torch.no_grad():
        torch.testing.assert_close(logits, network(x), atol=1e-5, rtol=1e-4)
    for stage in stages:
        assert stage.mean((0, 1)).abs().max() < 1e-3
        assert ((stage.std((0, 1)) - 1).abs() < 0.2).float().mean() > 0.8  # channels that are dead stay so
    teacher = Teacher(network, x)
    with torch.no_grad():
        h = torch.relu(network.bn1(network.conv1(x)))
        h = network.layer2(network.layer1(h))
    wanted = torch.stack([h[:, :, 2 * (5 // 8) + dy, 2 * (5 % 8) + dx] for dy in (0, 1) for dx in (0, 1)], 2)
    found = teacher(x)[0][1][:, 5] * teacher.deviation[1] + teacher.mean[1]
    torch.testing.assert_close(found.view(16, 32, 4), wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_the_logged_losses_come_again(as_logged):
    as_logged("vit", train_vit, "--precision", "bf16")
