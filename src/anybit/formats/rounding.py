"""Rounding to integers: the one place where a rounding mode acts.

Every format scales its input to units of its own spacing, rounds here, and scales back. Stochastic rounding draws from Philox4x32-10
(Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): element i of the flattened array uses
the i-th 32-bit word of the stream of the key, so the result does not depend on threads, chunks or the kind of array.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from anybit.errors import FormatError
from anybit.formats.arrays import is_torch, namespace

Mode = Literal["nearest_even", "nearest_away", "toward_zero", "up", "down", "stochastic"]
"""nearest_even: ties to the even neighbour. nearest_away: ties away from zero. up, down: towards +infinity, -infinity."""

Key = int | tuple[int, int]
"""A 64-bit seed, or (seed, position of the first element in the seed's stream)."""

MODES: tuple[str, ...] = get_args(Mode)

_MASK = 0xFFFFFFFF
_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def check_mode(mode: str, key: Key | None) -> None:
    """FormatError for an unknown mode, and for stochastic rounding without a key."""
    if mode not in MODES:
        raise FormatError(f"unknown rounding mode {mode!r}; known: {', '.join(MODES)}")
    if mode == "stochastic" and key is None:
        raise FormatError("stochastic rounding needs a key (a 64-bit seed, or a pair (seed, offset))")


def philox(counter: tuple[Any, Any, Any, Any], seed: int) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four words of a 128-bit counter (int64 arrays of values below 2^32) -> four random 32-bit words.

    Products reach 2^64 and wrap in int64; an arithmetic shift followed by a mask still gives the high and low words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        a, b = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c1, c2, c3 = (((b >> 32) & _MASK) ^ c1) ^ k0, b & _MASK, (((a >> 32) & _MASK) ^ c3) ^ k1, a & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform(like: Any, key: Key) -> Any:
    """Numbers in [0, 1), multiples of 2^-24, in the shape, kind and dtype of `like`."""
    xp = namespace(like)
    seed, start = key if isinstance(key, tuple) else (key, 0)
    count = int(np.prod(like.shape, dtype=np.int64))
    first = start // 4
    groups = (start + count + 3) // 4 - first
    if is_torch(like):
        index = xp.arange(first, first + groups, dtype=xp.int64, device=like.device)
    else:
        index = np.arange(first, first + groups, dtype=np.int64)
    zero = index * 0
    words = xp.stack(philox((index & _MASK, (index >> 32) & _MASK, zero, zero), seed), -1).reshape(-1)
    words = words[start - 4 * first : start - 4 * first + count].reshape(like.shape) >> 8
    return (words.to(like.dtype) if is_torch(like) else words.astype(like.dtype)) * 2.0**-24


def to_integer(x: Any, mode: str, key: Key | None) -> Any:
    """Round x (float32 or float64, array or tensor) to integers of the same dtype. NaN and infinity pass through."""
    xp = namespace(x)
    if mode == "nearest_even":
        return xp.round(x)
    if mode == "toward_zero":
        return xp.trunc(x)
    if mode == "up":
        return xp.ceil(x)
    if mode == "down":
        return xp.floor(x)
    if mode == "nearest_away":
        # Not floor(|x| + 0.5): that sum rounds 0.49999997 up to 1.
        whole = xp.trunc(x)
        return xp.where(xp.abs(x - whole) >= 0.5, whole + xp.sign(x), whole)
    check_mode(mode, key)
    assert key is not None, "check_mode lets stochastic pass only with a key"
    below = xp.floor(x)
    return xp.where(uniform(x, key) < x - below, below + 1, below)
