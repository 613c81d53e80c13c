"""A matrix cut into blocks, a chunk of rows at a time, so that temporaries stay small however large the matrix is."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor

CHUNK = 1 << 18
"""Elements worked on at a time: 1 MiB of float32, so that a chunk and its temporaries stay near the core."""


def bands(rows: int, cols: int, block_rows: int, chunk: int | None = None) -> Iterator[list[tuple[int, int]]]:
    """Row ranges [a, b) covering `rows`, grouped into bands.

    A band is whole row blocks: either one chunk of several, or one row block too large for a chunk and so cut into several chunks.
    block_rows 0 means all rows.  chunk: elements of one, CHUNK where it is not said.
    """
    block_rows = block_rows or max(rows, 1)
    limit = max(1, (chunk or CHUNK) // max(cols, 1))
    step = block_rows * max(1, limit // block_rows)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield (
            [(a, min(a + max(limit, 1), stop)) for a in range(start, stop, limit)] if step > limit else [(start, stop)]
        )


def blocked(x: Tensor, block: tuple[int, int]) -> Tensor:
    """x [r, cols] -> [row blocks, block rows, col blocks, block cols], zeros put where the last block is short.

    A chunk that lies inside one row block counts as a block of its own height. A view where nothing is padded.
    """
    rows, cols = x.shape
    height, width = max(1, min(block[0] or rows, rows)), max(1, min(block[1] or cols, cols))
    down, across = ceil(rows / height), ceil(cols / width)
    if (down * height, across * width) != (rows, cols):
        x = torch.nn.functional.pad(x, (0, across * width - cols, 0, down * height - rows))
    return x.reshape(down, height, across, width)


def unblocked(x: Tensor, rows: int, cols: int) -> Tensor:
    """The inverse of `blocked`: [row blocks, block rows, col blocks, block cols] -> [rows, cols], padding dropped."""
    down, height, across, width = x.shape
    return x.reshape(down * height, across * width)[:rows, :cols]


def of_rows(parameters: Tensor, start: int, stop: int, block_rows: int) -> Tensor:
    """The parameters [row blocks, col blocks] of rows [start, stop), as [k, 1, col blocks, 1] to broadcast against `blocked`."""
    if block_rows:
        parameters = parameters[start // block_rows : ceil(stop / block_rows)]
    return parameters[:, None, :, None]
