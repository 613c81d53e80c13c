"""The fast path of `round`, `encode` and `decode`: float32 arrays on the CPU go through the native casts, with the same bits.

`Format` asks here first. None means that the readable code in the formats does the work: for other types and devices, for what needs
gradients, for small arrays, for formats and modes the kernels lack, for input they refuse (so that there is one place for error
messages), and where the native module is not built. The module is loaded on first use.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anybit.formats import arrays

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


@functools.cache
def grid(fmt: Any) -> Any:
    """The native description of a format; None where the kernels lack it."""
    from anybit.formats.codebook import Codebook
    from anybit.formats.floating import Float
    from anybit.formats.integer import Int

    native = module()
    if native is None:
        return None
    if isinstance(fmt, Int):
        return native.Grid.integer(fmt.min, fmt.max, fmt.bits)
    if isinstance(fmt, Float):
        e, m, low = fmt.exponent_bits, fmt.mantissa_bits, fmt.min_exponent
        standard = fmt.specials in ("ieee", "fn", "none") and fmt.min == -fmt.max and fmt.bits == 1 + e + m <= 16
        if not standard or not (low == -126 if e == 8 else -120 <= low - m <= 0):
            return None
        nan = int(fmt._encode(np, np.array([np.nan], np.float32), "nearest_even", None)[0]) if fmt.has_nan else None
        return native.Grid.floating(e, m, low, fmt.max, fmt.bits, nan)
    if isinstance(fmt, Codebook):
        levels = np.array(fmt.levels, np.float64)
        narrow = levels.astype(np.float32)
        if not np.all(np.diff(narrow) > 0):
            return None
        return native.Grid.table(narrow, thresholds(levels, "nearest_even"), thresholds(levels, "nearest_away"))
    return None


def thresholds(levels: NDArray[np.float64], mode: str) -> NDArray[np.float32]:
    """float32 t with: x belongs to level i exactly when t[i-1] < x <= t[i], ties of the nearest mode included."""
    middle = (levels[:-1] + levels[1:]) / 2
    up = np.arange(len(middle)) % 2 == 1 if mode == "nearest_even" else middle > 0
    near = middle.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where((near > middle) | ((near == middle) & up), below, near)


def round(fmt: Any, x: Any, mode: str, key: Any) -> Any:
    """`fmt.round(x, mode, key)`, or None."""
    found = _prepare(fmt, x, mode, key)
    if found is None:
        return None
    work, native, settings = found
    out = empty(work.size, np.float32)
    if native.cast_round(*settings[:2], work, out, *settings[2:]) and not fmt.has_nan:
        return None
    return arrays.restore(_like(out, x), x)


def encode(fmt: Any, x: Any, mode: str, key: Any) -> Any:
    """`fmt.encode(x, mode, key)`, or None."""
    found = _prepare(fmt, x, mode, key)
    if found is None:
        return None
    work, native, settings = found
    wide = np.int32 if arrays.is_torch(x) else np.uint16
    out = empty(work.size, np.uint8 if fmt.bits <= 8 else wide)
    if native.cast_encode(*settings[:2], work, out, *settings[2:]) and not fmt.has_nan:
        return None
    return _like(out, x)


def decode(fmt: Any, codes: Any, dtype: Any) -> Any:
    """`fmt.decode(codes, dtype)` for float32 and codes as `encode` gives them, or None."""
    if not _plain(codes) or codes.size < SMALLEST if not arrays.is_torch(codes) else not _usable_tensor(codes):
        return None
    native, table = module(), _values(fmt)
    if native is None or table is None:
        return None
    xp = arrays.namespace(codes)
    known = (xp.uint8, xp.int32) if arrays.is_torch(codes) else (np.uint8, np.uint16)
    if dtype != xp.float32 or codes.dtype not in known:
        return None
    flat = _flat(codes)
    out = empty(flat.size, np.float32)
    return _like(out, codes) if native.cast_decode(table, flat, out) else None


@functools.cache
def _values(fmt: Any) -> NDArray[np.float32] | None:
    """What every code means; None for formats of more than 16 bits and where codes mean more than their table says."""
    from anybit.formats.codebook import Codebook
    from anybit.formats.floating import Exponent, Float
    from anybit.formats.integer import Int

    if fmt.bits > 16 or not isinstance(fmt, Codebook | Exponent | Float | Int):
        return None
    codes = np.arange(len(fmt._table) if isinstance(fmt, Codebook) else 2**fmt.bits)
    values: NDArray[np.float32] = np.asarray(fmt._decode(np, codes, np.float32))
    return values


def _prepare(fmt: Any, x: Any, mode: str, key: Any) -> Any:
    """(flat float32 array, module, (grid, mode number, seed, start)), or None."""
    if arrays.is_torch(x):
        if not _usable_tensor(x) or not x.is_floating_point():
            return None
    elif not _plain(x) or x.size < SMALLEST or x.dtype.kind != "f":
        return None
    if x.dtype == arrays.namespace(x).float64:
        return None
    found = prepare(fmt, mode, key)
    if found is None:
        return None
    native, known, seed, start = found
    return _flat(arrays.working(x)), native, (known, native.CAST_MODES.index(mode), seed, start)


def prepare(fmt: Any, mode: str, key: Any) -> tuple[ModuleType, Any, int, int] | None:
    """(module, grid, seed, position in its stream) of a rounding that the kernels do, else None."""
    native = module()
    if native is None or mode not in native.CAST_MODES:
        return None
    seed, start = (key if isinstance(key, tuple) else (key, 0)) if mode == "stochastic" else (0, 0)
    if not (isinstance(seed, int) and isinstance(start, int) and 0 <= start < 2**62):
        return None
    known = grid(fmt)
    if known is None or (hasattr(fmt, "levels") and mode not in _TABLE_MODES):
        return None
    return native, known, seed & (2**64 - 1), start


_TABLE_MODES = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "stochastic")


def _plain(x: Any) -> bool:
    return type(x) is np.ndarray


def _usable_tensor(x: Any) -> bool:
    """Is x a plain tensor in memory that no gradient, transformation or tracer watches?"""
    torch = sys.modules["torch"]
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or x.device.type != "cpu" or x.numel() < SMALLEST:
        return False
    if x.layout != torch.strided or (x.requires_grad and torch.is_grad_enabled()) or x.is_neg() or x.is_conj():
        return False
    return not (torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x))


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
