"""The native module, which everything in this folder needs."""

from __future__ import annotations

from typing import Any

from anybit.errors import AnybitError
from anybit.ops import native


def module() -> Any:
    """`anybit._native`.  Raises `AnybitError` that says how to build it where it was not built."""
    loaded = native.load()
    if loaded is None:
        raise AnybitError(
            "running and sampling need the native module, which could not be loaded; "
            "`make native` builds it in a checkout, `pip install .` elsewhere"
        )
    return loaded
