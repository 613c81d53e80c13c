"""Rotary position embedding tables: inverse frequencies (radians a position) and the factor of cosine and sine, by scaling type.

Scaling types: default (Su et al., arXiv 2104.09864), linear (position interpolation, Chen et al., arXiv 2306.15595), llama3 (Llama
3.1), yarn (Peng et al., arXiv 2309.00071), longrope (Ding et al., arXiv 2402.13753). All are fixed tables; `dynamic` changes with the
sequence and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anybit.errors import UnsupportedModelError
from anybit.models.config import Config, number

Parameters = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Rope:
    """table: float32 [rotated columns / 2] inverse frequencies.  factor: multiplies cosine and sine.  limit: positions the table is
    meant for (0 where there is no such limit).
    """

    table: Tensor
    factor: float = 1.0
    limit: int = 0


def rope(parameters: Parameters, head_dim: int, max_positions: int, context: int | None = None) -> Rope:
    """The table of the (normalized, see `rope_parameters`) parameters.

    context: the longest sequence to be run; only longrope depends on it (short factors up to the original length, else long).
    Raises UnsupportedModelError for an unknown scaling type or a parameter that is missing or out of range.
    """
    kind = str(parameters["rope_type"])
    if kind not in _SCALINGS:
        raise UnsupportedModelError(
            f"RoPE scaling {kind!r} is not supported; supported are {', '.join(_SCALINGS)}"
            + (": a dynamic table changes with the length of the sequence" if kind == "dynamic" else "")
        )
    dim = int(head_dim * number(parameters.get("partial_rotary_factor", 1.0), "rope partial_rotary_factor"))
    if not 2 <= dim <= head_dim or dim % 2:
        raise UnsupportedModelError(
            f"RoPE must rotate an even number of columns from 2 to {head_dim} a head; got {dim}"
        )
    powers = number(parameters["rope_theta"], "rope_theta") ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return _SCALINGS[kind](parameters, powers, max_positions, context)


def rope_parameters(config: Config, theta: float = 10000.0, layer_type: str | None = None) -> dict[str, Any]:
    """The RoPE settings of a config in one flat form, from the older keys (`rope_theta`, `rope_scaling`, `partial_rotary_factor`) or
    the newer `rope_parameters`, which may be nested by layer type.

    Keys: rope_type, rope_theta, partial_rotary_factor, original_max_position_embeddings and those of the scaling type.
    """
    new, old = config.mapping("rope_parameters"), config.mapping("rope_scaling")
    if layer_type is not None and isinstance(new.get(layer_type), dict):
        new = new[layer_type]
    merged = {**new, **old}
    merged["rope_type"] = merged.get("rope_type") or merged.get("type") or "default"
    if merged.get("rope_theta") is None:
        merged["rope_theta"] = config.number("rope_theta", theta)
    if merged.get("partial_rotary_factor") is None:
        merged["partial_rotary_factor"] = config.number("partial_rotary_factor", 1.0)
    original = config.get("original_max_position_embeddings") or merged.get("original_max_position_embeddings")
    merged["original_max_position_embeddings"] = original or config.get("max_position_embeddings")
    return merged


def _default(p: Parameters, powers: Tensor, max_positions: int, context: int | None) -> Rope:
    return Rope(1.0 / powers)


def _linear(p: Parameters, powers: Tensor, max_positions: int, context: int | None) -> Rope:
    return Rope(1.0 / powers / _positive(p, "factor"))


def _llama3(p: Parameters, powers: Tensor, max_positions: int, context: int | None) -> Rope:
    """Wavelengths above original/low are stretched by `factor`, below original/high kept, between them blended."""
    factor, low, high = (_positive(p, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = _positive(p, "original_max_position_embeddings")
    inverse = 1.0 / powers
    turns = original * inverse / (2 * math.pi)  # full turns within the original context
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    return Rope((1 - blend) * inverse / factor + blend * inverse)


def _yarn(p: Parameters, powers: Tensor, max_positions: int, context: int | None) -> Rope:
    """Equations 17 to 22 of the paper: interpolate slow dimensions, keep fast ones, ramp between; temperature in `factor`."""
    original = _positive(p, "original_max_position_embeddings")
    factor = _positive(p, "factor") if p.get("factor") is not None else max_positions / original
    dim = 2 * len(powers)

    def dimension(turns: float) -> float:
        """The (fractional) dimension that makes that many turns within the original context."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(_positive(p, "rope_theta")))

    low, high = dimension(float(p.get("beta_fast") or 32)), dimension(float(p.get("beta_slow") or 1))
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = ((torch.arange(len(powers), dtype=torch.float32) - low) / (high - low if high != low else 0.001)).clamp(0, 1)
    inverse = 1.0 / powers
    temperature = p.get("attention_factor")
    if temperature is None:
        scale, whole = p.get("mscale"), p.get("mscale_all_dim")
        temperature = _mscale(factor, scale) / _mscale(factor, whole) if scale and whole else _mscale(factor)
    return Rope(inverse / factor * ramp + inverse * (1 - ramp), float(temperature))


def _mscale(factor: float, scale: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _longrope(p: Parameters, powers: Tensor, max_positions: int, context: int | None) -> Rope:
    """A factor for each dimension: one set up to the original context, another beyond it."""
    original = int(_positive(p, "original_max_position_embeddings"))
    factor = _positive(p, "factor") if p.get("factor") is not None else max_positions / original
    temperature = p.get("attention_factor")
    if temperature is None:
        temperature = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    beyond = context is not None and context > original
    key = "long_factor" if beyond else "short_factor"
    factors = p.get(key)
    if not isinstance(factors, list) or len(factors) != len(powers):
        raise UnsupportedModelError(f"longrope's {key} must be a list of {len(powers)} numbers")
    stretch = torch.tensor([number(value, f"longrope's {key}") for value in factors])
    return Rope(1.0 / (stretch * powers), float(temperature), limit=0 if beyond else original)


def _positive(p: Parameters, key: str) -> float:
    return number(p.get(key), f"RoPE scaling {p['rope_type']!r}: {key}")


_SCALINGS: dict[str, Callable[[Parameters, Tensor, int, int | None], Rope]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
