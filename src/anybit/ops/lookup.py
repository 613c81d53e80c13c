"""Products by table lookup: sums of four activations with all signs are made once a row of x, and weight bits only choose among them.

Of bits read as signs, a weight of b planes is w = sum_j 2^(j-1) sigma_j + shift (`tensors.bitplanes.as_bipolar`), so with the 16 signed
sums of four neighbouring activations, T[i] = sum_t (bit t of i ? x_t : -x_t),

    sum_k w x = sum over planes j of 2^(j-1) sum over quads T[four bits of plane j] + shift sum_k x

with no multiplication but by scales, and time in proportion to b (T-MAC, EuroSys 2025, and bitnet.cpp). Tables are kept as

    exact    float64                                              the sums themselves
    int16    for activations that are 8-bit integers: no loss     |T| <= 4 * 127
    int8     rounded to 127 steps of the largest sum of a group of activations, as T-MAC does
    average  int8, and added by halves in a tree of 16 with rounding up, an estimate of the bias subtracted: quick on hardware, and coarse

This is the readable reference in numpy, one row of x at a time; `ops.prepack(w, "nibbles")` is the compiled one, with int16 tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops.bitserial import reason
from anybit.tensors import QTensor, quantize
from anybit.tensors.bitplanes import as_bipolar, from_qtensor

Tables = Literal["exact", "int16", "int8", "average"]
TABLES: tuple[str, ...] = get_args(Tables)
QUAD = 4
TREE = 16

SIGNS: NDArray[np.int64] = 2 * (np.arange(16)[:, None] >> np.arange(QUAD) & 1) - 1
"""[16, 4]: the sign that index i gives each of four activations."""


@dataclass(frozen=True)
class RowTables:
    """Of one row of x: values [groups, quads of a group, 16] (float64 or integers), scale [groups] that makes them sums of x."""

    values: NDArray[Any]
    scale: NDArray[np.float64]


def row_tables(x: NDArray[np.float64], group: int, tables: Tables) -> RowTables:
    """The tables of a row x [k], k and `group` multiples of 4. int16 wants integers of up to 127."""
    sums = x.reshape(-1, group // QUAD, QUAD) @ SIGNS.T
    ones = np.ones(len(sums))
    if tables == "exact":
        return RowTables(sums, ones)
    if tables == "int16":
        return RowTables(sums.astype(np.int16), ones)
    # The largest sum of a quad is that of its magnitudes.
    scale = np.abs(sums).max((1, 2)) / 127
    safe = np.where(scale > 0, scale, 1.0)
    return RowTables(np.rint(sums / safe[:, None, None]).astype(np.int8), scale)


def lookup_linear(
    x: Tensor, w: QTensor, tables: Tables = "int8", act: TensorFormat | None = None, group: int = 64
) -> Tensor:
    """x [..., k] times w [n, k] transposed through tables -> float32 [..., n].

    group: activations that share a table scale, a multiple of 64 that divides the groups of w and k. act: rounds x first; "int16" needs
    int8 with one scale a row, the others take None. FormatError for weights that are no sums of their bits, more than 4 bits wide or with
    scales over several rows, groups that do not divide one another, and tables that do not suit `act`.
    """
    _check(x, w, tables, act, group)
    n, k = w.shape
    planes, unit, shift = as_bipolar(from_qtensor(w, 0))
    digits = planes.digits().numpy().reshape(planes.bits, n, k // group, group // QUAD, QUAD)
    index = (digits << np.arange(QUAD, dtype=np.uint8)).sum(-1, dtype=np.uint8)
    alpha = unit * 2.0 ** np.arange(planes.bits)
    wide = w.format.block[1] or k
    scales = _spread(w.scales(), wide, group, k)
    zeros = 0.0 if w.zeros() is None else _spread(w.zeros(), wide, group, k)
    rows = x.detach().reshape(-1, k).double().numpy()
    factor = np.ones(len(rows))
    if act is not None:
        given = quantize(torch.from_numpy(rows).float(), act)
        rows, factor = given.unpacked().to(torch.int8).double().numpy(), given.scales()[:, 0].double().numpy()
    out = np.empty((len(rows), n))
    for m, row in enumerate(rows):
        table = row_tables(row, group, tables)
        total = row.reshape(-1, group).sum(1)
        picked = np.take_along_axis(table.values[None, None], index[..., None].astype(np.int64), axis=-1)[..., 0]
        sums = (
            _averaged(picked)
            if tables == "average"
            else picked.sum(-1, dtype=np.float64 if tables == "exact" else np.int64)
        )
        # [n, groups]: planes weighted and scaled, and what is the same for all planes added once
        joined = np.einsum("p,png->ng", alpha, sums * table.scale) + (shift - zeros) * total
        out[m] = factor[m] * (joined * scales).sum(1)
    return torch.from_numpy(out).float().reshape(*x.shape[:-1], n)


def _averaged(picked: NDArray[np.int8]) -> NDArray[np.float64]:
    """Sums over the last axis by rounding averages, 16 at a time: (a + b + 1) >> 1 in four levels, times 16, less the expected excess.

    Every level adds half of a half on average where a sum is odd: 16 * log2(16) / 4 a tree of 16.
    """
    values = picked.astype(np.int16).reshape(*picked.shape[:-1], -1, TREE)
    while values.shape[-1] > 1:
        values = values[..., 0::2] + values[..., 1::2] + 1 >> 1
    trees = values[..., 0].astype(np.float64) * TREE - TREE * np.log2(TREE) / 4
    total: NDArray[np.float64] = trees.sum(-1)
    return total


def _spread(grid: Tensor | None, wide: int, group: int, k: int) -> NDArray[np.float64]:
    """Parameters [n or 1, col blocks] for each group of activations."""
    assert grid is not None, "asked for where there are parameters"
    columns = np.arange(k // group) * group // wide
    return grid.double().numpy()[:, columns]


def _check(x: Tensor, w: QTensor, tables: Tables, act: TensorFormat | None, group: int) -> None:
    k = w.shape[-1]
    if tables not in TABLES:
        raise FormatError(f"tables are {', '.join(TABLES)}; got {tables!r}")
    if x.shape[-1] != k:
        raise FormatError(f"x has {x.shape[-1]} columns, the weight {k}")
    why = reason(TensorFormat.parse("int8/row"), w.format, k)
    if why is not None or w.format.bits > 4 or w.format.block[0] > 1:
        raise FormatError(
            f"tables are looked up by weights of 1 to 4 bits with scales a row or narrower; got {w.format}"
        )
    wide = w.format.block[1] or k
    if group < 1 or group % (QUAD * TREE) or k % group or wide % group:
        raise FormatError(
            f"activations share a scale in groups of a multiple of {QUAD * TREE} that divide k = {k} and groups of {wide}; got {group}"
        )
    lossless = act is not None and act.element.name == "int8" and act.block == (1, 0) and act.zero is None
    if (act is not None or tables == "int16") and not lossless:
        raise FormatError(f"activations are left as they are or are int8 a row, which int16 tables need; got {act}")
