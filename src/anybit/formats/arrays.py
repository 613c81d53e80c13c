"""One body of code for numpy arrays and torch tensors, without importing torch; JAX arrays are computed by numpy on the host.

A torch tensor can only reach us when its owner has imported torch, so `sys.modules` has it. The two namespaces agree on the names
used in this floor (`round`, `clip`, `where`, `searchsorted`, …); what differs is written here once.

XLA flushes subnormal numbers to zero, evaluates exp2 inexactly and has no 64-bit integers by default, so the same code in jax.numpy would
give other bits. A concrete JAX array therefore goes through numpy, a traced one (jit, vmap) through `jax.pure_callback`. Callbacks run
on XLA's threads, where numpy flushes subnormal numbers too, so a thread of our own does the work.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from anybit.errors import FormatError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

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
        worker = _worker()

        def elsewhere(a: Any) -> NDArray[Any]:
            return worker.submit(compute, a).result()

        return jax.pure_callback(elsewhere, jax.ShapeDtypeStruct(x.shape, dtype), x, vmap_method="expand_dims")
    return jnp.asarray(compute(x))


def complex_dtype(dtype: Any) -> Any:
    """The numpy type of complex numbers with parts of a real type, at least complex64; complex types as they are."""
    found = np.dtype(dtype)
    return found if found.kind == "c" else np.dtype(np.complex128 if found == np.float64 else np.complex64)


@functools.cache
def _worker() -> ThreadPoolExecutor:
    """One thread with the floating-point environment of who traces: threads inherit it, so it must not be begun within a callback."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1, "anybit-jax")
    pool.submit(int).result()
    return pool


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
    """x in the type the arithmetic is done in: float64 where x is float64 or an integer, else float32.

    What float64 does not hold (64-bit integers beyond 2^53, long doubles) is rounded to odd, so that a later rounding to a format is the
    only one that counts.
    """
    xp = namespace(x)
    if x.dtype.is_complex if is_torch(x) else x.dtype.kind == "c":
        raise FormatError(f"expected real numbers; got an array of {x.dtype}")
    if is_torch(x):
        if x.layout != xp.strided:
            raise FormatError(f"expected a dense tensor; got one of layout {x.layout}")
        if x.dtype.is_floating_point:
            return x if x.dtype == xp.float64 else x.to(xp.float32)
        return _odd_of_integers(x) if x.dtype in (xp.int64, xp.uint64) else x.to(xp.float64)
    x = np.asarray(x)
    if x.dtype.kind == "f":
        if x.dtype.itemsize > 8:
            with np.errstate(invalid="ignore", over="ignore"):
                near = x.astype(np.float64)
                return _odd(near, np.sign(x - near))
        return x.astype(np.float64 if x.dtype.itemsize == 8 else np.float32, copy=False)
    if x.dtype.kind in "iub":
        return _odd_of_integers(x) if x.dtype.itemsize == 8 else x.astype(np.float64)
    # bfloat16 and its kin from ml_dtypes have kind "V"; they widen exactly.
    try:
        if x.dtype.kind == "V" and x.dtype.names is None:
            return x.astype(np.float32)
    except (TypeError, ValueError):
        pass
    raise FormatError(f"expected real numbers; got an array of {x.dtype}")


def low_bits(x: Any) -> Any:
    """64-bit integers modulo 2^48, which float64 holds and which wraps around to the same; anything else as it is."""
    if is_torch(x):
        torch = sys.modules["torch"]
        x, wide = (x.view(torch.int64), True) if x.dtype == torch.uint64 else (x, x.dtype == torch.int64)
    else:
        wide = x.dtype.kind in "iu" and x.dtype.itemsize == 8
    return x & ((1 << 48) - 1) if wide else x


def _odd_of_integers(x: Any) -> Any:
    unsigned = is_torch(x) and x.dtype == sys.modules["torch"].uint64
    if unsigned:  # torch neither shifts nor masks it
        x = x.view(sys.modules["torch"].int64)
    upper = (x >> 32) & 0xFFFFFFFF if unsigned else x >> 32
    high, low = cast(upper, "float64") * 2.0**32, cast(x & 0xFFFFFFFF, "float64")
    near = high + low
    return _odd(near, low - (near - high))


def _odd(near: Any, rest: Any) -> Any:
    """near: the float64 nearest to a number; rest: 0 where it is that number, else of the sign of number - near."""
    xp, bits = namespace(near), bits_of(near)
    further = ((rest < 0) & (near > 0)) | ((rest > 0) & (near < 0))  # near is beyond the number, seen from zero
    return xp.where((rest < 0) | (rest > 0), (bits - cast(further, "int64")) | 1, bits).view(near.dtype)


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


def has_values(x: Any) -> bool:
    """Whether a tensor holds numbers that may be looked at: not where a tracer or a transformation stands for them."""
    torch = sys.modules["torch"]
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or torch.compiler.is_compiling():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return False
    return torch.utils._python_dispatch._get_current_dispatch_mode() is None


def check_codes(codes: Any, bits: int, name: str) -> None:
    """FormatError unless codes are integers of that many bits; of tensors on devices or under a tracer only the type is looked at."""
    xp = namespace(codes)
    if is_torch(codes):
        whole = not (codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == xp.bool)
        seen = codes.device.type == "cpu" and has_values(codes)
    else:
        whole, seen = codes.dtype.kind in "iu", True
    if not whole:
        raise FormatError(f"codes are integers; got an array of {codes.dtype}")
    if not seen or (codes.dtype == xp.uint8 and bits >= 8) or 0 in codes.shape:
        return
    if is_torch(codes) and codes.dtype in (xp.uint16, xp.uint32, xp.uint64):
        codes = codes.long()  # torch has no minimum of wide unsigned types
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= 1 << bits:
        raise FormatError(f"{name} has codes 0 to {(1 << bits) - 1}; got {low if low < 0 else high}")


def check_value_dtype(dtype: Any, codes: Any) -> None:
    """FormatError unless dtype is a floating or complex type of the library that codes belong to."""
    if is_torch(codes):
        torch_module = sys.modules["torch"]
        good = isinstance(dtype, torch_module.dtype) and (dtype.is_floating_point or dtype.is_complex)
    else:
        try:
            good = np.dtype(dtype).kind in "fcV"
        except TypeError:
            good = False
    if not good:
        kind = "torch" if is_torch(codes) else "numpy"
        raise FormatError(f"codes in {kind} are decoded to a floating type of {kind}; got {dtype}")


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
