"""Tilus (arXiv 2504.12984): layouts as algebraic values, so that codes of any width are loaded by calling registers bytes.

Correctness: the laws of the algebra on random layouts; operands of matrix instructions and the published packing of MARLIN derived from
primitives; real weights of every width through the derived packings and back, with no code of a lane outside that lane's own bytes.
Speed: the native kernels read planes in a layout of the same algebra (`tensors.known_packings.panels`). A product with one row reads
every weight once, so time should follow bytes at every width; storing odd widths in the next power of two is what it is compared with.
Lanes of vectors stand for threads; the tensor cores of the paper are not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from anybit import models, ops
from anybit.errors import LayoutError
from anybit.formats import TensorFormat
from anybit.reproduce.clock import EVICT, Case, copies, medians, one_thread, reading
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.tensors import Packing, quantize
from anybit.tensors.known_packings import FRAGMENTS, marlin, panels, tilus
from anybit.tensors.layout import Digit, Layout, local

WIDTHS = range(1, 9)
ACT = TensorFormat.parse("int8/row")


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick takes fewer random layouts and rounds."""
    return {
        "algebra": _algebra(300 if quick else 3000),
        "packings": _packings(),
        "speed": _speed(context, rounds=9 if quick else 25),
    }


def _random(rng: np.random.Generator, dims: int = 2) -> Layout:
    """A layout of a few digits of 2 to 4 dealt to two axes."""
    shape, digits = [], []
    for dim in range(dims):
        stride = 1
        for size in rng.integers(1, 5, rng.integers(0, 3)).tolist():
            digits.append(Digit(dim, stride, size, bool(rng.integers(2))))
            stride *= size
        shape.append(stride)
    axes: tuple[list[Digit], list[Digit]] = ([], [])
    for at in rng.permutation(len(digits)):
        axes[rng.integers(2)].append(digits[at])
    return Layout(tuple(shape), tuple(map(tuple, axes)))


def _algebra(count: int) -> dict[str, int]:
    """Random layouts for which a law of the algebra does not hold; all must be 0."""
    rng = np.random.default_rng(0)
    wrong = {"bijection": 0, "product": 0, "associative": 0, "division": 0, "inverse": 0}
    for _ in range(count):
        f, g, h = _random(rng), _random(rng), _random(rng)
        where = f.where().reshape(-1)
        wrong["bijection"] += sorted(where) != list(range(math.prod(f.shape)))
        wrong["associative"] += (f * g) * h != f * (g * h)
        wrong["division"] += (f * g) / g != f
        wrong["inverse"] += f.inverse() @ f != Layout.linear(f.shape, f.shape)
        # From single places: the element (i, j) of a product lies at place(f, outer) * places of g + place(g, inner).
        i, j = np.indices((f * g).shape)
        outer = np.stack(np.unravel_index(f.where()[i // g.shape[0], j // g.shape[1]], f.places))
        inner = np.stack(np.unravel_index(g.where()[i % g.shape[0], j % g.shape[1]], g.places))
        places = np.array(g.places)[:, None, None]
        expected = np.ravel_multi_index(tuple(outer * places + inner), (f * g).places)
        wrong["product"] += not np.array_equal((f * g).where(), expected)
    return {**wrong, "layouts": count, "all": sum(wrong.values())}


def _packings() -> dict[str, int]:
    """Codes of a real weight that a derived packing puts elsewhere than it should, by question."""
    weight = _weight()
    rows, cols = weight.shape
    lost = straying = native_lost = 0
    for bits in WIDTHS:
        codes = quantize(weight, TensorFormat.parse(f"uint{bits}/g64+z")).unpacked()
        packing = tilus(bits)
        data = packing.pack(codes)
        lost += int((packing.unpack(data, rows, cols) != codes).sum())
        straying += _straying(packing, bits)
        order = panels(bits)
        native_lost += int((order.unpack(order.pack(codes), rows, cols) != codes).sum())
    return {
        "lost": lost,
        "straying": straying,
        "native_lost": native_lost,
        "marlin": marlin_mismatches(),
        "fragments": _fragments(),
        "refused": _refusals(),
        "codes": rows * cols,
    }


def _weight() -> torch.Tensor:
    """A real matrix, cut to whole tiles of 64 x 64."""
    weight = models.load("anybit-tiny").weights.get("model.layers.0.mlp.up_proj.weight")
    assert isinstance(weight, torch.Tensor)
    rows, cols = (size // 64 * 64 for size in weight.shape)
    return weight[:rows, :cols].float()


def marlin_mismatches() -> int:
    """Words of a real weight's 4-bit codes that the derived packing of MARLIN and the published permutation give different values."""
    codes = quantize(_weight(), TensorFormat.parse("uint4/g64+z")).unpacked()
    ours = marlin().pack(codes).numpy().view("<u4")
    return int((ours != _marlin(codes.numpy().T).reshape(-1)).sum())


def _straying(packing: Packing, bits: int) -> int:
    """Bits of a tile that lie in a byte of another lane than the one that holds their code: what would have to be moved at run time."""
    plane = packing.planes[0]
    tile = local(1, 2) * FRAGMENTS["m16n8k16 b"]
    lane_of_code = np.empty(256, np.int64)
    lane_of_code[tile.transpose(1, 0).indices().reshape(-1)] = np.repeat(np.arange(32), 8)
    assert plane.memory is not None
    lane_of_byte = plane.memory.where() // plane.memory.places[1]
    return int((lane_of_code[plane.source().reshape(-1, 8) // bits] != lane_of_byte[:, None]).sum())


def _marlin(w: np.ndarray) -> np.ndarray:
    """uint32 [k / 16, 2 n] of codes [k, n] by the permutation of 1024 values that MARLIN (arXiv 2408.11743) publishes."""
    order = [
        16 * row + lane // 4 + 8 * half + 256 * j
        for lane in range(32)
        for j in range(4)
        for half in (0, 1)
        for row in (2 * (lane % 4) + r for r in (0, 1, 8, 9))
    ]
    permutation = np.array(order).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    k, n = w.shape
    strips = w.reshape(k // 16, 16, n // 16, 16).transpose(0, 2, 1, 3).reshape(-1, 1024)
    values = strips[:, permutation].reshape(k // 16, 2 * n, 8).astype(np.uint64)
    return (values << (4 * np.arange(8, dtype=np.uint64))).sum(-1).astype(np.uint32)


def _fragments() -> int:
    """Registers of mma.m16n8k16 that hold another element than the instruction's manual says."""
    lane, i = np.meshgrid(np.arange(32), np.arange(4), indexing="ij")
    group, t = lane // 4, lane % 4
    b = (2 * t + i % 2 + 8 * (i >= 2)) * 8 + group
    c = (group + 8 * (i >= 2)) * 8 + 2 * t + i % 2
    wrong = (FRAGMENTS["m16n8k16 b"].indices() != b).sum() + (FRAGMENTS["m16n8 accumulator"].indices() != c).sum()
    return int(wrong)


def _refusals() -> int:
    """Of four impossible requests, how many are refused: half a byte a lane, an inexact division, other places, a cut digit."""
    fragment = FRAGMENTS["m16n8k16 b"]
    requests = (
        lambda: tilus(1, 8, 16),
        lambda: fragment / local(4, 1),
        lambda: local(4, 4) @ fragment,
        lambda: Layout.parse("(a:3 b:4) -> b a").reshape(4, 3),
    )
    refused = 0
    for request in requests:
        try:
            request()
        except LayoutError:
            refused += 1
    return refused


def _speed(context: Context, rounds: int) -> dict[str, Any]:
    """Seconds of a product of one row with 16384 x 4096 weights of every width, read from memory; and what follows from them.

    On one thread: what is asked is how time follows bytes, and a second thread adds the waiting of one for the other.
    """
    n, k = 16384, 4096
    x = torch.randn(1, k, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(1))
    stored: dict[int, int] = {}
    cases: dict[str, list[Case]] = {}
    for bits in WIDTHS:
        context.progress("packing", bits - 1, len(WIDTHS))
        q = quantize(weight, TensorFormat.parse(f"int{bits}/g128"))
        stored[bits] = ops.prepack(q).nbytes
        cases[str(bits)] = copies(partial(ops.prepack, q), partial(ops.matmul, x, act=ACT), 3)
    cases["read"] = reading(stored[8], 3)
    with one_thread():
        seconds = medians(cases, rounds, EVICT, "product of one row", context.progress)
    bandwidth = stored[8] / seconds["read"]
    time = {bits: seconds[str(bits)] for bits in WIDTHS}
    line = {bits: time[4] + (time[8] - time[4]) * (bits - 4) / 4 for bits in WIDTHS}
    return {
        "bandwidth": bandwidth,
        "w": {str(bits): {"us": 1e6 * time[bits], "share": stored[bits] / bandwidth / time[bits]} for bits in WIDTHS},
        "least_share": min(stored[bits] / bandwidth / time[bits] for bits in (2, 3, 4, 5, 6, 8)),
        # Above 1 where fewer bits took more time; 3 % is what repeated medians differ by.
        "steps": max(time[a] / time[b] for a, b in zip((2, 3, 4, 5, 6), (3, 4, 5, 6, 8), strict=True)),
        "odd": max(time[bits] / line[bits] for bits in (3, 5, 6)),
        "container3": time[4] / time[3],
        "container6": time[8] / time[6],
    }


EXPERIMENT = Experiment(
    number=17,
    name="tilus",
    claim="With register layouts as algebraic values, any 1- to 8-bit weight type is loaded by a free reinterpretation instead of a "
    "hand-written packing.",
    source="arXiv 2504.12984, ASPLOS 2026",
    checks=(
        Check("laws of the algebra broken by random layouts", "algebra.all", "==", 0),
        Check("registers of mma operands derived from primitives: wrong ones", "packings.fragments", "==", 0),
        Check("words of MARLIN's packing, derived: wrong ones", "packings.marlin", "==", 0),
        Check("real weights of 1 to 8 bits through the derived packings: codes lost", "packings.lost", "==", 0),
        Check("bits a lane would have to fetch from another lane's bytes", "packings.straying", "==", 0),
        Check("impossible requests refused, of 4", "packings.refused", "==", 4),
        Check("M=1, widths 2, 3, 4, 5, 6, 8: at least 60 % of the read bandwidth", "speed.least_share", ">=", 0.6),
        Check("time falls with the width (within 3 %)", "speed.steps", "<=", 1.03),
        Check("3, 5 and 6 bits at most 1.25 times the line through 4 and 8", "speed.odd", "<=", 1.25),
        Check("3 bits at least 1.2 times as fast as in 4-bit containers", "speed.container3", ">=", 1.2),
        Check("6 bits at least 1.15 times as fast as in 8-bit containers", "speed.container6", ">=", 1.15),
    ),
    run=run,
    key_figures={
        "least share of bandwidth": "speed.least_share",
        "3 bits over 4-bit containers": "speed.container3",
        "6 bits over 8-bit containers": "speed.container6",
        "odd widths over the line": "speed.odd",
    },
    notes="Products of one row with int8 activations by the native kernels on one thread, weights read from memory; their planes of 4, 2 "
    "and 1 bits are values of the same algebra. GPU packings are derived and checked as data, not run.",
)
