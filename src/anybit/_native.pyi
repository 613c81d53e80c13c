"""The compiled module (native/bindings): kernels and the engine. Arrays are numpy arrays, C-contiguous."""

from typing import Any

def __getattr__(name: str) -> Any: ...
