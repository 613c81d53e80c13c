"""`ComplexSigns`: a matrix of the complex numbers 1, i, -1, -i, two bits each, with one scale for either axis (arXiv 2508.05571)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.tensors.packing import pack_bits, row_bytes, unpack_bits

_ROOTS = formats.get("i2c")


@dataclass(frozen=True, eq=False)
class ComplexSigns:
    """value = scale_re * Re(root) + i * scale_im * Im(root), root = i^code.

    codes     uint8 [n, ceil(k / 4)], codes of `i2c` packed as `tensors.packing` draws it
    scale_re  of entries on the real axis, scale_im of those on the imaginary one
    shape     (n, k)

    Construction raises FormatError where the codes do not fill the shape.
    """

    codes: Tensor
    scale_re: float
    scale_im: float
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        n, k = self.shape
        if self.codes.dtype != torch.uint8 or tuple(self.codes.shape) != (n, row_bytes(k, 2)):
            raise FormatError(
                f"{k} complex signs a row are uint8 [{n}, {row_bytes(k, 2)}]; got {self.codes.dtype} {list(self.codes.shape)}"
            )

    @staticmethod
    def of(w: Tensor) -> ComplexSigns:
        """The nearest roots of a complex matrix w [n, k], and the mean magnitude along either axis of the entries that went to it (0 where
        none did). FormatError for anything else, and where w holds NaN or infinity.
        """
        if w.ndim != 2 or not w.is_complex():
            raise FormatError(f"complex signs are of a complex matrix; got {w.dtype} {list(w.shape)}")
        if not bool(torch.isfinite(torch.view_as_real(w)).all()):
            raise FormatError("the matrix holds NaN or infinity, which have no sign")
        w = w.detach()
        codes = _ROOTS.encode(w)
        real = codes % 2 == 0
        re, im = (float(part.abs().double().mean()) if part.numel() else 0.0 for part in (w.real[real], w.imag[~real]))
        return ComplexSigns(pack_bits(codes, 2), re, im, (w.shape[0], w.shape[1]))

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of the scales as float32."""
        return self.codes.numel() + 8

    def unpacked(self) -> Tensor:
        """The codes, uint8 [n, k]."""
        return unpack_bits(self.codes, 2, self.shape[1])

    def dequantize(self) -> Tensor:
        """The values, complex64 [n, k]."""
        roots: Tensor = _ROOTS.decode(self.unpacked())
        return torch.complex(roots.real * self.scale_re, roots.imag * self.scale_im)
