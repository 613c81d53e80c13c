"""Pychop's interface (inEXASCALE/pychop 0.6) on our rounding.

    from anybit.formats.compat.pychop import Chop, FaultChop, Chopf, Chopi, Customs

The kind of array is found from the argument, not from an environment variable; numpy, torch and JAX arrays come back as they came. Random
numbers are counter-based: `random_state` seeds a stream of the object, a call goes on where the last one ended, and the global state of
numpy is left alone. `chunk_size` and `verbose` are accepted and change nothing.

Results of Pychop 0.6.2 that are different here because they are wrong there, each with a test:
 1. Chop: numbers from 2^(emax+1) to 2^(emax+2) became 0 in all deterministic modes (65536 … 131071 of fp16), instead of infinity or,
    by mode, the largest value.
 2. Chop: 65520, the tie beyond the largest fp16, became 65536, which fp16 does not have, instead of infinity.
 3. Chop: ties to zero (7) and ties away (8) went the wrong way for negative numbers.
 4. Chop: round to odd (9) moved numbers that are on the grid (1.0 to 1.00098).
 5. Chop: rounding up (2) a tiny positive number gave 0 instead of the smallest value, rounding down (3) a tiny negative one too.
 6. Chopi: without `symmetric` only 2^(bits-1) of 2^bits codes were used, and with it numbers of one sign were clipped to half their range.
 7. FaultChop: `customs.exp_bits` gave emax 2^e - 1 instead of 2^(e-1) - 1.
 8. FaultChop: stochastic modes gave 0 below the smallest value, a bias; here they round by position there as everywhere.
 9. All: constructing an object reseeded numpy's global generator.
`q43` is the IEEE-like E4M3 with largest value 240 and infinity, as in Pychop; OCP's is `formats.get("e4m3fn")`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anybit.errors import FormatError
from anybit.formats import arrays
from anybit.formats.compat.grid import BinaryGrid
from anybit.formats.fixed import FixedPoint
from anybit.formats.rounding import RANDOM_MODES, Mode, StochasticKey

RMODES: dict[int | str, Mode] = {
    1: "nearest_even",
    2: "up",
    3: "down",
    4: "toward_zero",
    5: "stochastic",
    6: "stochastic_50",
    7: "nearest_zero",
    8: "nearest_away",
    9: "odd",
    10: "stochastic_50",
    "nearest": "nearest_even",
    "plus_inf": "up",
    "minus_inf": "down",
    "toward_zero": "toward_zero",
    "stoc_prop": "stochastic",
    "stoc_equal": "stochastic_50",
    "cadna": "stochastic_50",
}
"""Pychop's numbers and names of rounding modes."""

PRECISIONS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("q43", "fp8-e4m3"), (4, 7)),
    **dict.fromkeys(("q52", "fp8-e5m2"), (3, 15)),
    **dict.fromkeys(("h", "half", "fp16"), (11, 15)),
    **dict.fromkeys(("b", "bfloat16", "bf16"), (8, 127)),
    **dict.fromkeys(("s", "single", "fp32"), (24, 127)),
    **dict.fromkeys(("d", "double", "fp64"), (53, 1023)),
}
"""Name -> (t, emax)."""


def mode_of(rmode: int | str) -> Mode:
    """Our name of a rounding mode of Pychop. FormatError for another number or word."""
    if isinstance(rmode, bool) or rmode not in RMODES:
        raise FormatError(f"rmode is one of {', '.join(map(str, RMODES))}; got {rmode!r}")
    return RMODES[rmode]


class _Stream:
    """The random numbers of an object: every call takes the next ones of its seed."""

    def __init__(self, seed: int) -> None:
        self._seed, self._used = seed, 0

    def take(self, x: Any) -> StochasticKey:
        key = StochasticKey(self._seed, self._used)
        self._used += int(np.prod(np.shape(x), dtype=np.int64))
        return key


class Chop:
    """Rounding to `exp_bits` exponent and `sig_bits` fraction bits (the hidden one not counted), IEEE-like: bias 2^(exp_bits-1) - 1.

    rmode: 1 nearest even, 2 up, 3 down, 4 toward zero, 5 stochastic, 6 and 10 either neighbour with probability 1/2, 7 ties to zero,
    8 ties away, 9 odd.  subnormal: False flushes to 0 or the smallest normal value.  u: the unit roundoff.
    """

    def __init__(
        self,
        exp_bits: int,
        sig_bits: int,
        rmode: int | str = 1,
        subnormal: bool = True,
        chunk_size: int = 800,
        random_state: int = 42,
        verbose: int = 0,
    ) -> None:
        if not 2 <= exp_bits <= 11 or not 0 <= sig_bits <= 52:
            raise FormatError(f"Chop takes 2 to 11 exponent and 0 to 52 fraction bits; got {exp_bits} and {sig_bits}")
        self.exp_bits, self.sig_bits, self.rmode, self.subnormal = exp_bits, sig_bits, rmode, subnormal
        self._mode = mode_of(rmode)
        self._grid = BinaryGrid(sig_bits + 1, 2 ** (exp_bits - 1) - 1, bool(subnormal))
        self._stream = _Stream(random_state)
        self.u = self._grid.u

    def __call__(self, x: Any) -> Any:
        """x (floating numpy, torch or JAX array, or a number) rounded."""
        return self._grid.round(x, self._mode, self._stream.take(x) if self._mode in RANDOM_MODES else None)


@dataclass
class Customs:
    """A format of one's own for FaultChop: t and emax, or exp_bits and sig_bits (the hidden bit not counted)."""

    emax: int | None = None
    t: int | None = None
    exp_bits: int | None = None
    sig_bits: int | None = None

    def limits(self) -> tuple[int, int]:
        """(t, emax). FormatError where one is missing."""
        t = self.sig_bits + 1 if self.sig_bits is not None else self.t
        emax = 2 ** (self.exp_bits - 1) - 1 if self.exp_bits is not None else self.emax
        if t is None or emax is None:
            raise FormatError("customs needs t or sig_bits, and emax or exp_bits")
        return t, emax


class FaultChop:
    """Rounding to a named precision or to `customs`, with Higham's options: unlimited exponent (`explim=0`) and random bit flips.

    prec: a key of PRECISIONS.  subnormal: None means all formats but bfloat16 have subnormal numbers, as in chop.  flip, p: each result
    has one random trailing bit of its significand inverted with probability p.
    """

    def __init__(
        self,
        prec: str = "h",
        subnormal: bool | None = None,
        rmode: int | str = 1,
        flip: bool = False,
        explim: int = 1,
        p: float = 0.5,
        randfunc: Callable[[int], Any] | None = None,
        customs: Customs | None = None,
        random_state: int = 0,
        verbose: int = 0,
    ) -> None:
        if randfunc is not None:
            raise FormatError("random numbers are counter-based here, so there is no randfunc; give random_state")
        if customs is None and prec not in PRECISIONS:
            raise FormatError(f"prec is one of {', '.join(PRECISIONS)}; got {prec!r}")
        self.t, self.emax = customs.limits() if customs is not None else PRECISIONS[prec]
        if subnormal is None:
            subnormal = customs is not None or prec not in ("b", "bfloat16", "bf16")
        self.prec, self.rmode, self.subnormal, self.flip, self.explim, self.p = prec, rmode, subnormal, flip, explim, p
        self._mode = mode_of(rmode)
        self._grid = BinaryGrid(self.t, self.emax, bool(subnormal), bool(explim))
        self._stream = _Stream(random_state)
        self.u = self._grid.u

    def __call__(self, x: Any) -> Any:
        """x (floating numpy, torch or JAX array, or a number) rounded."""
        drawn = self._stream.take(x) if self.flip or self._mode in RANDOM_MODES else None
        return self._grid.round(x, self._mode, drawn, float(self.p) if self.flip else 0.0)


class Chopf:
    """Fixed point with `ibits` integer bits (the sign included) and `fbits` fraction bits; beyond the range numbers saturate.

    rmode as of Chop.
    """

    def __init__(self, ibits: int = 4, fbits: int = 4, rmode: int | str = 1, random_state: int = 0) -> None:
        self.ibits, self.fbits, self.rmode = ibits, fbits, rmode
        self._mode = mode_of(rmode)
        self._format = FixedPoint(ibits, fbits)
        self._stream = _Stream(random_state)

    def quantize(self, x: Any) -> Any:
        """x (floating numpy, torch or JAX array, or a number) rounded."""
        array = (
            x if arrays.is_torch(x) or arrays.is_jax(x) else np.asarray(x, None if hasattr(x, "dtype") else np.float64)
        )
        return self._format.round(array, self._mode, self._stream.take(array) if self._mode in RANDOM_MODES else None)

    __call__ = quantize


class Chopi:
    """Integers with a scale: `calibrate(x)` sets scale and zero point, `quantize` (or calling) gives integers, `dequantize` numbers.

    symmetric: codes ±(2^(bits-1) - 1), scale absmax / (2^(bits-1) - 1), zero point 0.  Else codes 0 … 2^bits - 1 over the range of x,
    widened to hold 0.  per_channel: one scale for each index of `axis`.
    """

    def __init__(self, bits: int = 8, symmetric: bool = False, per_channel: bool = False, axis: int = 0) -> None:
        if not 2 <= bits <= 16:
            raise FormatError(f"Chopi takes 2 to 16 bits; got {bits}")
        self.bits, self.symmetric, self.per_channel, self.axis = bits, symmetric, per_channel, axis
        self.qmax = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
        self.qmin = -self.qmax if symmetric else 0
        self.scale: Any = None
        self.zero_point: Any = None

    def calibrate(self, x: Any) -> None:
        """Set `scale` and `zero_point` (float64) from the range of x. FormatError for NaN, infinity and empty x."""
        x = _numpy(x)
        if not x.size or not np.isfinite(x).all():
            raise FormatError("Chopi is calibrated on finite numbers, at least one")
        others = tuple(d for d in range(x.ndim) if d != self.axis % x.ndim) if self.per_channel and x.ndim > 1 else None
        low = np.minimum(x.min(axis=others, keepdims=others is not None), 0)
        high = np.maximum(x.max(axis=others, keepdims=others is not None), 0)
        if self.symmetric:
            reach = np.maximum(-low, high)
            self.scale = np.where(reach > 0, reach, 1) / self.qmax
            self.zero_point = np.zeros_like(self.scale)
        else:
            reach = high - low
            self.scale = np.where(reach > 0, reach, 1) / self.qmax
            self.zero_point = np.round(-low / self.scale)

    def quantize(self, x: Any) -> Any:
        """Integer codes (the smallest type that holds them), in the kind of array of x; calibrates on x where nothing was calibrated."""
        array = _numpy(x)
        if self.scale is None:
            self.calibrate(array)
        if np.isnan(array).any():
            raise FormatError("the input holds NaN, which no integer represents")
        codes = np.clip(np.round(array / self.scale) + self.zero_point, self.qmin, self.qmax)
        kind = (
            np.int8
            if self.symmetric and self.bits <= 8
            else np.uint8
            if self.bits <= 8
            else np.int16
            if self.symmetric
            else np.int32
        )
        return _like(x, codes.astype(kind))

    __call__ = quantize

    def dequantize(self, codes: Any) -> Any:
        """Numbers of codes, float32 (float64 in numpy). FormatError before any calibration."""
        if self.scale is None:
            raise FormatError("Chopi has no scale yet; call calibrate or quantize first")
        values = (_numpy(codes) - self.zero_point) * self.scale
        return _like(codes, values if isinstance(codes, np.ndarray) else values.astype(np.float32))


def _numpy(x: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    if arrays.is_torch(x):
        return np.asarray(x.detach().cpu().double().numpy())
    return np.asarray(x, np.float64)


def _like(x: Any, values: Any) -> Any:
    if arrays.is_torch(x):
        import torch

        return torch.from_numpy(np.asarray(values)).to(x.device)
    if arrays.is_jax(x):
        return arrays.on_host(lambda _: values, x, values.dtype)
    return values
