"""Rounding to integers: the one place where a rounding mode acts.

Every format scales its input to units of its own spacing, rounds here, and scales back.

mode           of the two neighbours of a number that is not on the grid            elsewhere called
nearest_even   the nearer; at a tie the one with the even code                       RNE, RND_CONV; IEEE 754 roundTiesToEven
nearest_away   the nearer; at a tie the one of larger magnitude                      RNA, RND_INF; roundTiesToAway
nearest_zero   the nearer; at a tie the one of smaller magnitude                     RND_ZERO
nearest_up     the nearer; at a tie the upper one                                    RND (of HLS), round half up
nearest_down   the nearer; at a tie the lower one                                    RND_MIN_INF
toward_zero    the one of smaller magnitude                                          RZ, TRN_ZERO, truncation
up, down       the upper, the lower                                                  RU, RD; down is TRN of HLS
odd            the one with the odd code: no double rounding error in a later step   von Neumann, "jamming", round to odd
stochastic     the upper with the probability of the position between them           SR, proportional
stochastic_50  either with probability 1/2                                           random directed (CADNA)

Numbers on the grid never move. Random modes draw from Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011): element i of the flattened array uses the i-th 32-bit word of the stream of the key, so the result does not depend
on threads, chunks or the kind of array. `stochastic` compares the upper 24 bits of the word with the position; a `StochasticKey` with
`bits=k` models hardware that has k random bits an operation: the position is first rounded to a multiple of 2^-k (ties to even),
then compared with the upper k bits of the word.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from anybit.errors import FormatError
from anybit.formats.arrays import is_torch, namespace

Mode = Literal[
    "nearest_even",
    "nearest_away",
    "nearest_zero",
    "nearest_up",
    "nearest_down",
    "toward_zero",
    "up",
    "down",
    "odd",
    "stochastic",
    "stochastic_50",
]
"""What becomes of a number between two neighbours of the grid; the table in this module's docstring says it."""


@dataclass(frozen=True)
class StochasticKey:
    """A key that says how many random bits a rounding has: seed (64 bits), position of the first element in its stream, bits 1 to 24.

    Negative seeds count as two's complement. FormatError for other numbers, and for what is not an integer.
    """

    seed: int
    offset: int = 0
    bits: int | None = None

    def __post_init__(self) -> None:
        for name in ("seed", "offset", "bits"):
            value = getattr(self, name)
            if value is not None or name != "bits":
                object.__setattr__(self, name, _whole(value))
        if not -(2**63) <= self.seed < 2**64:
            raise FormatError(f"the seed of a key has 64 bits; got {self.seed}")
        if not 0 <= self.offset < 2**62:
            raise FormatError(f"the position of a key in its stream is 0 to 2^62 - 1; got {self.offset}")
        if self.bits is not None and not 1 <= self.bits <= 24:
            raise FormatError(f"stochastic rounding draws 1 to 24 random bits an element; got {self.bits}")


def _whole(value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise FormatError(
            f"a key is a 64-bit seed, (seed, offset) or a StochasticKey, of integers; got {value!r} in it"
        ) from None


Key = int | tuple[int, int] | StochasticKey
"""A 64-bit seed, (seed, position of the first element in the seed's stream), or a `StochasticKey`."""

MODES: tuple[str, ...] = get_args(Mode)
RANDOM_MODES = ("stochastic", "stochastic_50")

_MASK = 0xFFFFFFFF
_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def check_mode(mode: str, key: Key | None) -> None:
    """FormatError for an unknown mode, and for stochastic rounding without a key."""
    if mode not in MODES:
        raise FormatError(f"unknown rounding mode {mode!r}; known: {', '.join(MODES)}")
    if mode in RANDOM_MODES:
        as_key(key)


def as_key(key: Key | None) -> StochasticKey:
    """Any spelling of a key as a `StochasticKey`; FormatError for none."""
    if key is None:
        raise FormatError("stochastic rounding needs a key (a 64-bit seed, or a pair (seed, offset))")
    if isinstance(key, StochasticKey):
        return key
    if isinstance(key, tuple) and len(key) != 2:
        raise FormatError(f"a key of two numbers is (seed, offset); got {key!r}")
    return StochasticKey(*key) if isinstance(key, tuple) else StochasticKey(key)


def advance(key: Key | None, elements: int) -> Key | None:
    """The key of what stands `elements` further in the same stream; None for None."""
    if key is None:
        return None
    found = as_key(key)
    return StochasticKey(found.seed, found.offset + elements, found.bits)


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
    """Numbers in [0, 1), multiples of 2^-24 (of 2^-k where the key has k bits), in the shape, kind and dtype of `like`."""
    xp = namespace(like)
    found = as_key(key)
    start, bits = found.offset, found.bits or 24
    count = int(np.prod(like.shape, dtype=np.int64))
    first = start // 4
    groups = (start + count + 3) // 4 - first
    if is_torch(like):
        index = xp.arange(first, first + groups, dtype=xp.int64, device=like.device)
    else:
        index = np.arange(first, first + groups, dtype=np.int64)
    zero = index * 0
    words = xp.stack(philox((index & _MASK, (index >> 32) & _MASK, zero, zero), found.seed), -1).reshape(-1)
    words = words[start - 4 * first : start - 4 * first + count].reshape(like.shape) >> (32 - bits)
    return (words.to(like.dtype) if is_torch(like) else words.astype(like.dtype)) * 2.0**-bits


def goes_up(position: Any, mode: str, key: Key | None) -> Any:
    """Where a random mode takes the upper neighbour; position in [0, 1] is how far a number is from the lower one."""
    check_mode(mode, key)
    assert key is not None and mode in RANDOM_MODES, f"{mode} is decided by its caller"
    draw = uniform(position, key)
    if mode == "stochastic_50":
        return (position >= 1) | ((position > 0) & (draw < 0.5))
    bits = as_key(key).bits
    return draw < (position if bits is None else namespace(position).round(position * 2.0**bits) * 2.0**-bits)


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
    if mode in RANDOM_MODES or mode not in MODES:
        below = xp.floor(x)
        return xp.where(goes_up(x - below, mode, key), below + 1, below)
    # Not floor(|x| + 0.5): that sum rounds 0.49999997 up to 1. The distance to the truncated number is exact.
    whole = xp.trunc(x)
    if mode == "odd":
        half = whole * 0.5
        return xp.where((x != whole) & (xp.trunc(half) == half), whole + xp.sign(x), whole)
    distance = xp.abs(x - whole)
    if mode == "nearest_away":
        away = distance >= 0.5
    elif mode == "nearest_zero":
        away = distance > 0.5
    else:
        away = (distance > 0.5) | ((distance == 0.5) & (x > 0 if mode == "nearest_up" else x < 0))
    return xp.where(away, whole + xp.sign(x), whole)
