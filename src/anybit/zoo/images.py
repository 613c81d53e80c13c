"""The image sets of the shared data as tensors: CIFAR-10, and photographs kept as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.errors import AnybitError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels red, green and blue in 0..1 (ImageNet's), by which `normalise` shifts and scales."""


def pixels(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [n, 3, 32, 32] as bytes and labels [n] of one stored batch of CIFAR-10.

    A file holds the planes R-G, G, B-G as differences along both axes, modulo 256.
    """
    with np.load(path, allow_pickle=False) as stored:
        planes: NDArray[np.uint8] = stored["d"].cumsum(-1, dtype=np.uint8).cumsum(-2, dtype=np.uint8)
        labels = stored["y"].astype(np.int64)
    return np.stack([planes[0] + planes[1], planes[1], planes[2] + planes[1]], 1), labels


def normalise(images: Tensor) -> Tensor:
    """Bytes [n, 3, h, w] -> float32 of about zero mean and unit deviation."""
    shape = (1, 3, 1, 1)
    mean, deviation = (torch.tensor(v, device=images.device).view(shape) for v in (MEAN, DEVIATION))
    return (images.float() / 255 - mean) / deviation


def images(path: Path) -> tuple[Tensor, Tensor]:
    """Normalised images [n, 3, 32, 32] float32 and labels [n] int64 of one stored batch of CIFAR-10."""
    bytes_, labels = pixels(path)
    return normalise(torch.from_numpy(bytes_)), torch.from_numpy(labels)


def photographs(path: Path, numbers: Sequence[int]) -> Tensor:
    """Bytes [n, 3, h, w] of the JPEGs with these numbers in a file of `jpeg` (their bytes, joined) and `offset` (where each begins).

    Raises AnybitError where Pillow, which decodes them, is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise AnybitError("reading photographs needs Pillow: pip install pillow") from None
    with np.load(path, allow_pickle=False) as stored:
        joined, offset = stored["jpeg"].tobytes(), stored["offset"]
    decoded = [np.asarray(Image.open(io.BytesIO(joined[offset[i] : offset[i + 1]]))) for i in numbers]
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()
