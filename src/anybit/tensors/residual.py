"""Tensors of two levels: the codes of a tensor, and the codes of what those left over (`formats.ResidualFormat`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Key, Mode, ResidualFormat
from anybit.formats.rounding import advance
from anybit.tensors.qtensor import QTensor
from anybit.tensors.quantizing import ScaleRule, quantize


@dataclass(frozen=True, eq=False)
class ResidualTensor:
    """value = main + rest, both of one shape. FormatError where they are not."""

    main: QTensor
    rest: QTensor

    def __post_init__(self) -> None:
        if self.main.shape != self.rest.shape:
            raise FormatError(f"both levels have one shape; got {self.main.shape} and {self.rest.shape}")

    @property
    def format(self) -> ResidualFormat:
        """The formats of the levels."""
        return ResidualFormat(self.main.format, self.rest.format)

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return self.main.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return self.main.nbytes + self.rest.nbytes

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The sum of both levels, added in float32 and rounded once to `dtype`; in float64 for float64."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return (self.main.dequantize().to(wide) + self.rest.dequantize().to(wide)).to(dtype)

    def rows(self, start: int, stop: int) -> ResidualTensor:
        """Rows [start, stop) as a view of the same storage, as of `QTensor.rows`."""
        return ResidualTensor(self.main.rows(start, stop), self.rest.rows(start, stop))

    def to(self, device: torch.device | str) -> ResidualTensor:
        """The same value on another device."""
        return ResidualTensor(self.main.to(device), self.rest.to(device))

    def __repr__(self) -> str:
        return f"ResidualTensor({self.format}, shape={self.shape})"


def quantize_residual(
    x: Tensor,
    fmt: ResidualFormat,
    scale_rule: ScaleRule = "absmax",
    mode: Mode = "nearest_even",
    importance: Tensor | None = None,
    key: Key | None = None,
) -> ResidualTensor:
    """x (floating, one dimension or more) -> both levels; arguments as of `quantize`, which codes x and then x minus its value.

    The difference is taken in float32. The levels draw from different parts of the stream of `key`.
    """
    if not isinstance(fmt, ResidualFormat):
        raise FormatError(f"expected a ResidualFormat, as ResidualFormat.parse('nvfp4~nvfp4') gives; got {fmt!r}")
    main = quantize(x, fmt.main, scale_rule, mode, importance, key)
    left = x.detach().float() - main.dequantize()
    # A saturated infinity leaves one, of which nothing more can be coded.
    left = torch.where(left.isinf(), 0.0, left)
    return ResidualTensor(main, quantize(left, fmt.rest, scale_rule, mode, importance, advance(key, 1 << 40)))


def round_residual(
    x: Tensor,
    fmt: ResidualFormat,
    scale_rule: ScaleRule = "absmax",
    mode: Mode = "nearest_even",
    key: Key | None = None,
) -> Tensor:
    """x moved onto the values of the format, float32: `quantize_residual`, decoded."""
    return quantize_residual(x, fmt, scale_rule, mode, None, key).dequantize()
