"""What must hold for blocks.py: chunks cover the rows once and respect block borders; blocking is undone exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anybit.tensors import blocks


@given(st.integers(0, 300), st.integers(0, 5000), st.integers(0, 40), st.sampled_from([1, 64, 1000, 1 << 18]))
def test_bands_cover_the_rows_and_respect_blocks(rows: int, cols: int, height: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CHUNK", chunk)
        bands = list(blocks.bands(rows, cols, height))
    chunks = [c for band in bands for c in band]
    assert [r for a, b in chunks for r in range(a, b)] == list(range(rows))
    full = height or max(rows, 1)
    for band in bands:
        assert band[0][0] % full == 0 and (band[-1][1] % full == 0 or band[-1][1] == rows)
        assert len(band) == 1 or band[-1][1] - band[0][0] <= full  # several chunks only where one block is too large
    for a, b in chunks:
        assert (b - a) * cols <= max(chunk, cols)  # never above the limit, save that a chunk holds at least one row


@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 10), st.integers(0, 24))
def test_unblocked_undoes_blocked_and_padding_is_zero(rows: int, cols: int, height: int, width: int) -> None:
    x = torch.arange(1.0, rows * cols + 1).reshape(rows, cols)
    y = blocks.blocked(x, (height, width))
    assert torch.equal(blocks.unblocked(y, rows, cols), x)
    assert y.sum() == x.sum() and y.count_nonzero() == x.numel()
    for r in range(rows):
        for c in range(cols):
            h, w = y.shape[1], y.shape[3]
            assert y[r // h, r % h, c // w, c % w] == x[r, c]


def test_of_rows_picks_the_blocks_of_the_rows() -> None:
    table = torch.arange(12.0).reshape(4, 3)
    assert blocks.of_rows(table, 16, 40, 16).reshape(-1, 3).tolist() == table[1:3].tolist()
    assert blocks.of_rows(table[:1], 5, 9, 0).shape == (1, 1, 3, 1)
