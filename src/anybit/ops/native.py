"""The native module, or why it is missing."""

from __future__ import annotations

import functools
import warnings
from types import ModuleType
from typing import Any


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
