"""Stored planes become colours again; photographs decode to their numbers."""

import io

import numpy as np
import torch

from anybit.zoo.images import DEVIATION, MEAN, images, photographs, pixels


def stored(tmp_path):
    rng = np.random.default_rng(0)
    red, green, blue = rgb = rng.integers(0, 256, (3, 5, 32, 32), dtype=np.uint8)
    planes = np.stack([red - green, green, blue - green])
    for axis in (-1, -2):
        planes = np.diff(planes, axis=axis, prepend=np.zeros_like(planes.take([0], axis)))
    np.savez(tmp_path / "batch.npz", d=planes, y=np.arange(5, dtype=np.uint8))
    return tmp_path / "batch.npz", rgb.transpose(1, 0, 2, 3)


def test_images_undo_the_differences(tmp_path):
    path, rgb = stored(tmp_path)
    raw, labels = pixels(path)
    assert np.array_equal(raw, rgb) and raw.dtype == np.uint8 and labels.tolist() == list(range(5))
    x, y = images(path)
    expected = (rgb / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(DEVIATION, (3, 1, 1))
    assert x.dtype == torch.float32 and y.tolist() == list(range(5))
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_photographs(tmp_path):
    from PIL import Image

    parts = []
    for number in range(3):
        file = io.BytesIO()
        Image.fromarray(np.full((16, 16, 3), (80 * number, 10, 200), dtype=np.uint8)).save(file, "JPEG", quality=95)
        parts.append(file.getvalue())
    offset = np.cumsum([0, *map(len, parts)])
    np.savez(tmp_path / "p.npz", jpeg=np.frombuffer(b"".join(parts), np.uint8), offset=offset)
    found = photographs(tmp_path / "p.npz", [2, 0])
    assert found.shape == (2, 3, 16, 16) and found.dtype == torch.uint8
    assert abs(found[0, 0].float().mean() - 160) < 4 and found[1, 0].float().mean() < 4
