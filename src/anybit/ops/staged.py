"""A product in stages: chunks of the weight are widened into a workspace, multiplied from there, and slices of k added up at the end.

This is how machines multiply whose unpacking and multiplying units meet only in memory (arXiv 2601.16536), and what fused kernels avoid.
The readable reference of that order of arithmetic: float32 sums within a slice, slices added in the order of k, so that bits depend on
`splits` and the chunks, never on how many workers there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anybit.errors import AnybitError
from anybit.ops.partition import Piece, split_k
from anybit.tensors import QTensor


def staged_matmul(
    x: Tensor,
    w: QTensor,
    splits: int = 1,
    chunk: tuple[int, int] = (256, 128),
    workspace: torch.dtype = torch.float16,
    workers: int = 1,
) -> Tensor:
    """x [..., k] times w [n, k] transposed -> float32 [..., n], in `splits` slices of k.

    chunk: rows of w and columns of k widened at a time. workspace: the dtype of widened weights and of x beside them.
    AnybitError for scales that are not finite, chunks that cut a group, and more slices than chunks of k.
    """
    n, k = w.shape
    high, wide = chunk
    if high < 1 or wide < 1:
        raise AnybitError(f"a chunk has at least one row and one column; got {high} x {wide}")
    if w.format.block[1] and wide % w.format.block[1] and wide < k:
        raise AnybitError(f"chunks of {wide} columns cut the groups of {w.format}")
    if not torch.isfinite(w.scales()).all():
        raise AnybitError("some scales of the weight are not finite")
    rows = x.detach().reshape(-1, k).to(workspace).float()
    tiles, steps = -(-n // high), -(-k // wide)
    pieces = split_k(tiles, steps, workers, splits)
    partial = torch.zeros(splits, rows.shape[0], n)
    for worker in range(workers):
        for piece in (p for p in pieces if p.worker == worker):
            _multiply(rows, w, piece, chunk, workspace, partial)
    total = partial[0]
    for turn in range(1, splits):
        total = total + partial[turn]
    return total.reshape(*x.shape[:-1], n)


def _multiply(
    rows: Tensor, w: QTensor, piece: Piece, chunk: tuple[int, int], workspace: torch.dtype, partial: Tensor
) -> None:
    """The piece's share of the sums, chunk by chunk."""
    n, k = w.shape
    first, last = piece.tile * chunk[0], min(n, (piece.tile + 1) * chunk[0])
    band = w.rows(first, last)
    for step in range(piece.begin, piece.end):
        start, stop = step * chunk[1], min(k, (step + 1) * chunk[1])
        widened = band.columns(start, stop).dequantize(workspace)
        partial[piece.turn, :, first:last] += rows[:, start:stop] @ widened.float().T
