"""The fast path of `round`, `encode` and `decode`: arrays on the CPU go through the native casts, with the same bits.

`Format` asks here first. None means that the readable code in the formats does the work: for other types and devices, for what needs
gradients, for small arrays, for formats and modes the kernels lack, for input they refuse (so that there is one place for error
messages), and where the native module is not built. The module is loaded on first use.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.formats import arrays
from anybit.formats.ladder import Ladder
from anybit.formats.overflow import replacements
from anybit.formats.rounding import RANDOM_MODES, as_key

SMALLEST = 1024
"""Elements from which a call of the kernels pays."""
LARGE = 1 << 22
"""Bytes from which a result is put on huge pages."""


@functools.cache
def module() -> ModuleType | None:
    """`anybit._native`; None where it was not built."""
    try:
        from anybit import _native
    except ImportError:
        return None
    loaded: ModuleType = _native
    return loaded


def empty(count: int, dtype: Any) -> NDArray[Any]:
    """An array [count] to be filled; on huge pages, which spare a large one most of its page faults."""
    dtype = np.dtype(dtype)
    native = module()
    if native is None or count * dtype.itemsize < LARGE:
        return np.empty(count, dtype)
    pages: NDArray[np.uint8] = native.large_array(count * dtype.itemsize)
    return pages.view(dtype)


@functools.lru_cache(maxsize=64)  # a table of a 16-bit format takes megabytes
def grid(fmt: Any) -> Any:
    """The native description of a format; None where the kernels lack it."""
    from anybit.formats.codebook import Codebook
    from anybit.formats.fixed import FixedPoint
    from anybit.formats.floating import Exponent, Float
    from anybit.formats.integer import Int
    from anybit.formats.posit import Posit

    native = module()
    if native is None:
        return None
    if isinstance(fmt, Int):
        return native.Grid.integer(fmt.min, fmt.max, fmt.bits)
    if isinstance(fmt, FixedPoint):
        return native.Grid.integer(fmt.min, fmt.max, fmt.bits, fmt.eps)
    if isinstance(fmt, Codebook):
        return _table(native, fmt, fmt._ladder, None)
    if isinstance(fmt, Posit):
        codes = np.arange(len(fmt._ladder.levels)) - (len(fmt._ladder.levels) >> 1)
        return _table(native, fmt, fmt._ladder, codes & (2**fmt.bits - 1))
    if isinstance(fmt, Exponent):
        return _ordered(native, fmt)
    if isinstance(fmt, Float):
        e, m, low = fmt.exponent_bits, fmt.mantissa_bits, fmt.min_exponent
        if fmt.name == "fp32":
            return native.Grid.floating(e, m, low, fmt.max, fmt.bits, fmt.nan_code)
        standard = fmt.specials in ("ieee", "fn", "none") and fmt.min == -fmt.max and fmt.bits == 1 + e + m <= 16
        if not standard or not (low == -126 if e == 8 else -120 <= low - m <= 0):
            return None if fmt.has_negative_zero or fmt.bits > 16 else _ordered(native, fmt)
        nan = int(fmt._encode(np, np.array([np.nan], np.float32), "nearest_even", None)[0]) if fmt.has_nan else None
        return native.Grid.floating(e, m, low, fmt.max, fmt.bits, nan)
    return None


def _ordered(native: ModuleType, fmt: Any) -> Any:
    """A format without -0 whose values part at their midpoints, as a table."""
    from anybit.formats.floating import Float

    codes = np.flatnonzero(np.isfinite(fmt._table))
    codes = codes[np.argsort(fmt._table[codes])]
    return _table(native, fmt, Ladder(fmt._table[codes], odd=codes % 2 == 1), codes, keeps_nan=isinstance(fmt, Float))


def _table(native: ModuleType, fmt: Any, ladder: Ladder, codes: NDArray[Any] | None, keeps_nan: bool = False) -> Any:
    from anybit.formats.posit import Posit

    levels = ladder.levels.astype(np.float32)
    if not np.all(np.diff(levels) > 0):
        return None
    thresholds = np.stack([ladder.thresholds(mode) for mode in native.CAST_MODES if mode not in RANDOM_MODES])
    known = None if codes is None else codes.astype(np.int32)
    if isinstance(fmt, Posit):  # only zero becomes zero, whatever happens to ties
        zero = len(levels) >> 1
        nearest = [mode.startswith("nearest") for mode in native.CAST_MODES if mode not in RANDOM_MODES]
        thresholds[nearest, zero - 1 : zero + 1] = np.nextafter(np.float32(0), np.float32(-1)), 0
    return native.Grid.table(levels, thresholds, known, fmt.bits, fmt.nan_code if fmt.has_nan else None, keeps_nan)


def from_float64(fmt: Any, mode: str) -> bool:
    """Are the kernels exact for float64 numbers?

    They round to float32 first: in the mode itself where that is the target, else to odd, which needs two bits between float32 and the
    grid's midpoints, and a mode that looks at no more than the grid's neighbours.
    """
    from anybit.formats.codebook import Codebook

    return fmt.name == "fp32" or (mode not in RANDOM_MODES and not isinstance(fmt, Codebook) and fmt.bits <= 20)


def round(fmt: Any, x: Any, mode: str, key: Any, overflow: str = "saturate") -> Any:
    """`fmt.round(x, mode, key, overflow)`, or None."""
    found = _prepare(fmt, x, mode, key, overflow)
    if found is None:
        return None
    work, cast, end = found
    out = empty(work.size, work.dtype)
    if cast.module.cast_round(cast.grid, cast.mode, work, out, *cast.chance, end) and not fmt.has_nan:
        return None
    return arrays.restore(_like(out, x), x)


def encode(fmt: Any, x: Any, mode: str, key: Any, overflow: str = "saturate") -> Any:
    """`fmt.encode(x, mode, key, overflow)`, or None."""
    found = _prepare(fmt, x, mode, key, overflow)
    if found is None:
        return None
    work, cast, end = found
    wide = np.int32 if arrays.is_torch(x) else np.uint16
    if fmt.bits > 16:
        wide = np.int32
    out = empty(work.size, np.uint8 if fmt.bits <= 8 else wide)
    if cast.module.cast_encode(cast.grid, cast.mode, work, out, *cast.chance, end) and not fmt.has_nan:
        return None
    codes = _like(out, x)
    return codes if fmt.bits <= 16 else codes.long() & 0xFFFFFFFF if arrays.is_torch(x) else codes.view(np.uint32)


def decode(fmt: Any, codes: Any, dtype: Any) -> Any:
    """`fmt.decode(codes, dtype)` for float32 and codes as `encode` gives them, or None."""
    if not _plain(codes) or codes.size < SMALLEST if not arrays.is_torch(codes) else not usable_tensor(codes):
        return None
    native, table = module(), values(fmt)
    if native is None or table is None:
        return None
    xp = arrays.namespace(codes)
    known = (xp.uint8, xp.int32) if arrays.is_torch(codes) else (np.uint8, np.uint16)
    if dtype != xp.float32 or codes.dtype not in known:
        return None
    flat = _flat(codes)
    out = empty(flat.size, np.float32)
    return _like(out, codes) if native.cast_decode(table, flat, out) else None


@functools.lru_cache(maxsize=64)
def values(fmt: Any) -> NDArray[np.float32] | None:
    """What every code means; None for formats of more than 16 bits and where codes mean more than their table says."""
    from anybit.formats.codebook import Codebook

    if fmt.bits > 16 or fmt.is_complex:
        return None
    codes = np.arange(len(fmt._table) if isinstance(fmt, Codebook) else 2**fmt.bits)
    found: NDArray[np.float32] = np.asarray(fmt._decode(np, codes, np.float32))
    return found


def _prepare(fmt: Any, x: Any, mode: str, key: Any, overflow: str) -> tuple[NDArray[Any], Cast, Any] | None:
    """(flat float32 or float64 array, the cast, what becomes of numbers beyond the range or None), or None."""
    if arrays.is_torch(x):
        if not usable_tensor(x) or not x.is_floating_point():
            return None
    elif not _plain(x) or x.size < SMALLEST or x.dtype.kind not in "fV":
        return None
    work = arrays.working(x)
    wide = work.dtype == arrays.namespace(x).float64
    if overflow == "wrap" or (wide and not (x.dtype == work.dtype and from_float64(fmt, mode))):
        return None
    cast = prepare(fmt, mode, key)
    if cast is None:
        return None
    return _flat(work), cast, None if overflow == "saturate" else _beyond(fmt, mode, overflow, wide)


@dataclass(frozen=True)
class Cast:
    """A rounding as the kernels know it."""

    module: ModuleType
    grid: Any
    mode: int
    chance: tuple[int, int, int]
    """Seed, position in its stream, bits of a draw (0: 24, and the position as it is)."""


def prepare(fmt: Any, mode: str, key: Any) -> Cast | None:
    """The native form of a rounding that saturates; None where the kernels lack it."""
    native = module()
    if native is None or mode not in native.CAST_MODES:
        return None
    chance = (0, 0, 0)
    if mode in RANDOM_MODES:
        found = as_key(key)
        chance = (found.seed & (2**64 - 1), found.offset, found.bits or 0)
    known = grid(fmt)
    return None if known is None else Cast(native, known, native.CAST_MODES.index(mode), chance)


@functools.lru_cache(maxsize=256)
def _beyond(fmt: Any, mode: str, overflow: str, wide: bool) -> Any:
    """What becomes of float32 (wide: float64) numbers beyond the range, for an overflow other than saturate and wrap."""
    from anybit.formats.posit import Posit

    native = module()
    assert native is not None, "only called with kernels"
    high, low = replacements(fmt, overflow)
    sign = 1 << (fmt.bits - 1)
    codes = [fmt.nan_code if v != v else fmt.inf_code | (sign if v < 0 else 0) for v in (low, high)]
    # Of posits only infinity is beyond, whatever is drawn.
    drawn = mode in RANDOM_MODES and not isinstance(fmt, Posit)
    return native.Beyond(
        (0.0, 0.0) if drawn else _limits(fmt, mode, overflow, np.float64 if wide else np.float32),
        tuple(np.array([low, high], np.float32).view(np.uint32).tolist()),
        tuple(codes),
        drawn,
        (fmt.min, fmt.max),
        fmt.steps_beyond,
        fmt.end_parities,
    )


def _limits(fmt: Any, mode: str, overflow: str, dtype: Any) -> tuple[float, float]:
    """(least, largest) number of this type that is not beyond the range, found by halving with the readable rule.

    Halving goes over the numbers in their order: the bit pattern, negated for negative ones.
    """
    store = np.int64 if dtype == np.float64 else np.int32

    def order(value: float) -> int:
        return int(np.array([abs(value)], dtype).view(store)[0]) * (-1 if value < 0 else 1)

    def number(place: int) -> NDArray[Any]:
        size: NDArray[Any] = np.array([abs(place)], store).view(dtype)
        return -size if place < 0 else size

    def last(inside: float, end: float, side: int) -> float:
        with np.errstate(all="ignore"):

            def goes(place: int) -> bool:
                return bool(fmt._beyond(np, number(place), mode, None, overflow)[side][0])

            near, far = order(inside), order(end)
            if not goes(far):
                return end
            while abs(far - near) > 1:
                middle = (near + far) // 2
                near, far = (near, middle) if goes(middle) else (middle, far)
        return float(number(near)[0])

    return last(fmt.min, -np.inf, 1), last(fmt.max, np.inf, 0)


def _plain(x: Any) -> bool:
    return type(x) is np.ndarray


def usable_tensor(x: Any) -> bool:
    """Is x a plain tensor in memory that no gradient, transformation or tracer watches?"""
    torch = sys.modules["torch"]
    if x.device.type != "cpu" or x.numel() < SMALLEST or type(x) not in (torch.Tensor, torch.nn.Parameter):
        return False
    if x.layout != torch.strided or (x.requires_grad and torch.is_grad_enabled()) or x.is_neg() or x.is_conj():
        return False
    return arrays.has_values(x)


def _flat(x: Any) -> NDArray[Any]:
    """The elements in C order as a numpy array [n]; a view where they lie so."""
    if arrays.is_torch(x):
        flat: NDArray[Any] = x.detach().contiguous().reshape(-1).numpy()
        return flat
    return np.ascontiguousarray(x).reshape(-1)


def _like(flat: NDArray[Any], x: Any) -> Any:
    """flat in the shape and kind of x."""
    if arrays.is_torch(x):
        return sys.modules["torch"].from_numpy(flat).reshape(x.shape)
    return flat.reshape(x.shape)
