"""`QTensor`: a quantized tensor as a plain value of plain tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Format, TensorFormat
from anybit.tensors import blocks
from anybit.tensors.decoding import dequantized
from anybit.tensors.packing import row_bytes, unpack_bits

if TYPE_CHECKING:
    from anybit.tensors.slicing import Slice

SCALE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Scale formats that torch can hold; the others are stored as uint8 codes."""


def scale_dtype(scale: Format) -> torch.dtype:
    """The storage dtype of scales of that format."""
    return SCALE_DTYPES.get(scale.name, torch.uint8)


@dataclass(frozen=True, eq=False)
class QTensor:
    """Numbers in memory: value = (decode(code) - decode(zero)) * scale * tensor_scale, over the matrix view [rows, cols].

    codes         uint8 [rows, ceil(cols*bits/8)], packed as `tensors.packing` draws it
    scale         [row blocks, col blocks] in fp32, fp16, bf16, else uint8 codes of the scale's format; None where unscaled
    zero          uint8 codes of the element format, same grid; None without `+z`
    tensor_scale  float32 scalar; None without `+t`
    shape         the logical shape; rows = shape[0], cols = prod(shape[1:])

    Construction raises FormatError naming the part that does not fit.
    """

    codes: Tensor
    scale: Tensor | None
    zero: Tensor | None
    tensor_scale: Tensor | None
    shape: tuple[int, ...]
    format: TensorFormat

    def __post_init__(self) -> None:
        if len(self.shape) < 1:
            raise FormatError("a QTensor has at least one dimension; got the shape ()")
        fmt = self.format
        grid = list(fmt.grid(self.shape))
        self._check("codes", self.codes, torch.uint8, [self.row_count, row_bytes(self.col_count, fmt.bits)])
        self._check("scale", self.scale, scale_dtype(fmt.scale) if fmt.scale else None, grid)
        self._check("zero", self.zero, torch.uint8 if fmt.zero else None, grid)
        self._check("tensor_scale", self.tensor_scale, torch.float32 if fmt.tensor_scale else None, [])

    def _check(self, name: str, part: Tensor | None, dtype: torch.dtype | None, shape: list[int]) -> None:
        if part is None and dtype is None:
            return
        wanted = "none" if dtype is None else f"{str(dtype).removeprefix('torch.')} {shape}"
        got = "none" if part is None else f"{str(part.dtype).removeprefix('torch.')} {list(part.shape)}"
        if wanted != got:
            raise FormatError(f"the {name} of a {self.format} tensor of shape {self.shape} must be {wanted}; got {got}")

    @property
    def row_count(self) -> int:
        """Rows of the matrix view."""
        return self.shape[0]

    @property
    def col_count(self) -> int:
        """Columns of the matrix view."""
        return prod(self.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the codes lie."""
        return self.codes.device

    @property
    def dtype(self) -> torch.dtype:
        """What values decode to by default: float32. Libraries ask a layer's weight for it to cast the layer's input."""
        return torch.float32

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / number of logical elements (0 for an empty tensor)."""
        return 8 * self.nbytes / max(1, prod(self.shape))

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by field name, absent ones left out."""
        parts = {"codes": self.codes, "scale": self.scale, "zero": self.zero, "tensor_scale": self.tensor_scale}
        return {name: part for name, part in parts.items() if part is not None}

    def unpacked(self) -> Tensor:
        """Codes [rows, cols]: uint8 (int32 for 16-bit elements, int64 for 32-bit ones)."""
        return unpack_bits(self.codes, self.format.bits, self.col_count)

    def scales(self) -> Tensor:
        """float32 [row blocks, col blocks] with the tensor scale multiplied in; ones where unscaled."""
        if self.scale is None or self.format.scale is None:
            return torch.ones(self.format.grid(self.shape), device=self.device)
        scale = self.format.scale.decode(self.scale) if self.scale.dtype == torch.uint8 else self.scale.float()
        return scale if self.tensor_scale is None else scale * self.tensor_scale

    def zeros(self) -> Tensor | None:
        """float32 [row blocks, col blocks], decoded; None without zero points."""
        return None if self.zero is None or self.format.zero is None else self.format.zero.decode(self.zero)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values in the logical shape; computed in float32 and rounded once to `dtype`."""
        rows, cols = self.row_count, self.col_count
        scales, zeros, (high, wide) = self.scales(), self.zeros(), self.format.block
        if (fast := dequantized(self.codes, self.format, cols, scales, zeros)) is not None:
            return fast.to(dtype).reshape(self.shape)
        out = torch.empty(rows, cols, dtype=dtype, device=self.device)
        for band in blocks.bands(rows, cols, high):
            for a, b in band:
                codes = unpack_bits(self.codes[a:b], self.format.bits, cols)
                value = blocks.blocked(self.format.element.decode(codes), (high, wide))
                if zeros is not None:
                    value = value - blocks.of_rows(zeros, a, b, high)
                if self.scale is not None:
                    value = value * blocks.of_rows(scales, a, b, high)
                out[a:b] = blocks.unblocked(value, b - a, cols)
        return out.reshape(self.shape)

    def rows(self, start: int, stop: int) -> QTensor:
        """Rows [start, stop) as a view of the same storage. FormatError where a 2-D block would be cut or the range is outside."""
        if not 0 <= start <= stop <= self.row_count:
            raise FormatError(f"rows {start} to {stop} are not within the {self.row_count} rows of the tensor")
        high = self.format.block[0]
        if high and (start % high or (stop % high and stop != self.row_count)):
            raise FormatError(f"rows {start} to {stop} cut a block of {high} rows of {self.format}")
        first, last = (start // high, -(-stop // high)) if high else (0, 1 if stop > start else 0)
        return replace(
            self,
            codes=self.codes[start:stop],
            scale=None if self.scale is None else self.scale[first:last],
            zero=None if self.zero is None else self.zero[first:last],
            shape=(stop - start, *self.shape[1:]),
        )

    def columns(self, start: int, stop: int) -> QTensor:
        """Columns [start, stop) of the matrix view as a matrix, a view of the same storage.

        FormatError where a block or a byte of codes would be cut or the range is outside.
        """
        if not 0 <= start <= stop <= self.col_count:
            raise FormatError(f"columns {start} to {stop} are not within the {self.col_count} columns of the tensor")
        bits, wide = self.format.bits, self.format.block[1]
        if wide and (start % wide or (stop % wide and stop != self.col_count)):
            raise FormatError(f"columns {start} to {stop} cut a block of {wide} columns of {self.format}")
        if start * bits % 8 or (stop * bits % 8 and stop != self.col_count):
            raise FormatError(f"columns {start} to {stop} of {bits} bits do not begin and end at whole bytes")
        first, last = (start // wide, -(-stop // wide)) if wide else (0, 1 if stop > start else 0)
        return replace(
            self,
            codes=self.codes[:, start * bits // 8 : start * bits // 8 + row_bytes(stop - start, bits)],
            scale=None if self.scale is None else self.scale[:, first:last],
            zero=None if self.zero is None else self.zero[:, first:last],
            shape=(self.row_count, stop - start),
        )

    def at_bits(self, bits: int, mode: Slice = "round") -> QTensor:
        """The same numbers at fewer bits (`tensors.slicing`)."""
        from anybit.tensors.slicing import at_bits  # it makes QTensors

        return at_bits(self, bits, mode)

    def to(self, device: torch.device | str) -> QTensor:
        """The same value on another device."""
        return replace(
            self,
            codes=self.codes.to(device),
            scale=None if self.scale is None else self.scale.to(device),
            zero=None if self.zero is None else self.zero.to(device),
            tensor_scale=None if self.tensor_scale is None else self.tensor_scale.to(device),
        )

    def __repr__(self) -> str:
        return f"QTensor({self.format}, shape={self.shape}, {self.bits_per_weight:.3f} bits per weight)"
