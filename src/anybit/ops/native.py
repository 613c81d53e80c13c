"""The native module, or why it is missing; and memory like that of its packed weights."""

from __future__ import annotations

import functools
import mmap
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray


@functools.cache
def load() -> ModuleType | None:
    """`anybit._native`; None, after one warning that says what to do, where it was not built."""
    try:
        from anybit import _native
    except ImportError as error:
        warnings.warn(
            f"the native kernels could not be loaded ({error}); every product takes the slow reference path. "
            "`make native` builds them in a checkout, `pip install .` elsewhere.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    module: ModuleType = _native
    return module


def loaded() -> Any:
    """`anybit._native`, for what only it can have made."""
    module = load()
    assert module is not None, "packed weights come from the native module"
    return module


def bytes_to_read(size: int) -> NDArray[np.uint8]:
    """Bytes to measure reading with, on huge pages where there are any, as packed weights are. Not zeros, which would all be one page."""
    aligned = 2 << 20
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.ones(size, np.uint8)
    memory = mmap.mmap(
        -1, size + aligned, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # shared ones never have huge pages
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)  # which keeps the mapping
    skipped = -whole.ctypes.data % aligned
    found = whole[skipped : skipped + size]
    found.fill(1)
    return found
