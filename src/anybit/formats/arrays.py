"""One body of code for numpy arrays and torch tensors, without importing torch; JAX arrays are computed by numpy on the host.

A torch tensor can only reach us when its owner has imported torch, so `sys.modules` has it. The two namespaces agree on the names
used in this floor (`round`, `clip`, `where`, `searchsorted`, …); what differs is written here once.

XLA flushes subnormal numbers to zero, evaluates exp2 inexactly and has no 64-bit integers by default, so the same code in jax.numpy would
give other bits. A concrete JAX array therefore goes through numpy, a traced one (jit, vmap) through `jax.pure_callback`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError

if TYPE_CHECKING:
    import torch

ArrayT = TypeVar("ArrayT", "NDArray[Any]", "torch.Tensor")
"""A numpy array or torch tensor; JAX arrays, which need no JAX to type-check, pass as numpy's."""

UNSIGNED: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.uint32}


def code_dtype(bits: int) -> Any:
    """The numpy type of codes of that many bits."""
    return UNSIGNED[8 if bits <= 8 else 16 if bits <= 16 else 32]


def is_torch(x: object) -> bool:
    """Is x a torch tensor?"""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(x, torch_module.Tensor)


def is_jax(x: object) -> bool:
    """Is x a JAX array, concrete or traced?"""
    jax_module = sys.modules.get("jax")
    return jax_module is not None and isinstance(x, jax_module.Array)


def on_host(function: Callable[[NDArray[Any]], NDArray[Any]], x: Any, dtype: Any) -> Any:
    """function(x as a numpy array), elementwise, as a JAX array of `dtype` (None: x's own where inexact, else JAX's float).

    Under `vmap` the mapped axis counts as a leading dimension: random modes go on along it.
    """
    jax = sys.modules["jax"]
    jnp = jax.numpy
    if dtype is None:
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else float
    dtype = jax.dtypes.canonicalize_dtype(dtype)

    def compute(a: Any) -> NDArray[Any]:
        return np.asarray(function(np.asarray(a))).astype(dtype, copy=False)

    if isinstance(x, jax.core.Tracer):
        return jax.pure_callback(compute, jax.ShapeDtypeStruct(x.shape, dtype), x, vmap_method="expand_dims")
    return jnp.asarray(compute(x))


def namespace(x: object) -> Any:
    """The module `numpy` or `torch` that x belongs to; FormatError for anything else."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    if is_torch(x):
        return sys.modules["torch"]
    raise FormatError(f"expected a numpy array or a torch tensor; got {type(x).__name__}")


def cast(x: Any, dtype: str) -> Any:
    """x in the numpy or torch dtype of that name."""
    if is_torch(x):
        return x.to(getattr(sys.modules["torch"], dtype))
    return x.astype(dtype, copy=False)


def working(x: Any) -> Any:
    """x in the type the arithmetic is done in: float64 where x is float64 or an integer, else float32."""
    xp = namespace(x)
    if x.dtype.is_complex if is_torch(x) else x.dtype.kind == "c":
        raise FormatError(f"expected real numbers; got an array of {x.dtype}")
    if is_torch(x):
        return x.to(xp.float32 if x.dtype.is_floating_point and x.dtype != xp.float64 else xp.float64)
    x = np.asarray(x)
    if x.dtype.kind == "f":
        return (
            x if x.dtype in (np.float32, np.float64) else x.astype(np.float32 if x.dtype.itemsize < 4 else np.float64)
        )
    if x.dtype.kind in "iub":
        return x.astype(np.float64)
    # bfloat16 and its kin from ml_dtypes have kind "V"; they widen exactly.
    try:
        return x.astype(np.float32)
    except (TypeError, ValueError):
        raise FormatError(f"expected real numbers; got an array of {x.dtype}") from None


def restore(result: Any, x: Any) -> Any:
    """result in the floating type of x (left in its working type where x holds integers, or real numbers and the result is complex)."""
    if is_torch(x):
        return result.to(x.dtype) if x.dtype.is_floating_point and not result.is_complex() else result
    dtype = np.asarray(x).dtype
    return result if dtype.kind in "iub" or result.dtype.kind == "c" else np.asarray(result).astype(dtype, copy=False)


def code_array(codes: Any, bits: int) -> Any:
    """Non-negative integers in the storage type of codes.

    Up to 8 bits uint8. Beyond, numpy uses uint16 and uint32; torch int32 and int64, because its unsigned types have next to no operators.
    """
    if is_torch(codes):
        return cast(codes, "uint8" if bits <= 8 else "int32" if bits <= 16 else "int64")
    return np.asarray(codes).astype(code_dtype(bits), copy=False)


def bits_of(x: Any) -> Any:
    """The bit pattern of float32 or float64 values as int32 or int64."""
    xp = namespace(x)
    return x.view(xp.int64 if x.dtype == xp.float64 else xp.int32)


def float_layout(x: Any) -> tuple[int, int]:
    """(mantissa bits, exponent bias) of the working type of x."""
    return (52, 1023) if x.dtype == namespace(x).float64 else (23, 127)


def power_below(x: Any) -> Any:
    """2^floor(log2 |x|) for normal x, 0 for zero and subnormal x, infinity for infinity and NaN; same dtype as x."""
    mantissa, bias = float_layout(x)
    return (bits_of(x) & ((2 * bias + 1) << mantissa)).view(x.dtype)


def exponent_of_power(p: Any) -> Any:
    """log2 of normal powers of two, as integers (int32 or int64)."""
    mantissa, bias = float_layout(p)
    return (bits_of(p) >> mantissa) - bias
