"""How far quantized numbers are from the original; each metric with its formula. Sums are taken in float64."""

from __future__ import annotations

import math

from torch import Tensor

from anybit.errors import FormatError


def _check_shapes(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape:
        raise FormatError(f"tensors to compare must have one shape; got {tuple(x.shape)} and {tuple(y.shape)}")


def _pair(x: Tensor, y: Tensor) -> tuple[float, float]:
    _check_shapes(x, y)
    signal, noise = 0.0, 0.0
    a, b = x.reshape(-1), y.reshape(-1)
    for start in range(0, a.numel(), 1 << 20):
        p, q = a[start : start + (1 << 20)].double(), b[start : start + (1 << 20)].double()
        signal += float(p.square().sum())
        noise += float((p - q).square().sum())
    return signal, noise


def relative_error(x: Tensor, y: Tensor) -> float:
    """||x - y||_2 / ||x||_2; 0 where both are zero, infinity where only x is."""
    signal, noise = _pair(x, y)
    return math.sqrt(noise / signal) if signal else math.inf if noise else 0.0


def snr_db(x: Tensor, y: Tensor) -> float:
    """Signal-to-noise ratio in decibels, 10 log10(sum x^2 / sum (x - y)^2); infinity where y equals x."""
    signal, noise = _pair(x, y)
    return math.inf if not noise else 10 * math.log10(signal / noise) if signal else -math.inf


def mean_squared_error(x: Tensor, y: Tensor) -> float:
    """sum (x - y)^2 / count; 0 for empty tensors."""
    return _pair(x, y)[1] / max(1, x.numel())


def max_error(x: Tensor, y: Tensor) -> float:
    """max |x - y|; 0 for empty tensors."""
    _check_shapes(x, y)
    return float((x.double() - y.double()).abs().max()) if x.numel() else 0.0
