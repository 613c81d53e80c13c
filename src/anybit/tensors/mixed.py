"""`MixedTensor`: a matrix whose rows, or columns, have several formats.

Along rows (outputs) the parts are independent products that write to different columns of the result (MixLLM, arXiv 2412.14590); along
columns (inputs) they are partial sums of different columns of x, each of which may be rounded in its own way (COMET, arXiv 2410.12168;
LLM.int8()). Either way a product of the whole is one product a part, and `order` says which rows or columns a part has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors.qtensor import QTensor
from anybit.tensors.quantizing import ScaleRule, quantize


@dataclass(frozen=True, eq=False)
class MixedTensor:
    """parts: matrices that follow one another along `axis` (0 rows, 1 columns); place i of that has row or column order[i] of the whole.

    order: int64, a permutation. FormatError where parts and order do not fit.
    """

    parts: tuple[QTensor, ...]
    axis: int
    order: Tensor

    def __post_init__(self) -> None:
        if self.axis not in (0, 1):
            raise FormatError(f"parts lie along axis 0 (rows) or 1 (columns); got {self.axis}")
        if not self.parts or any(len(p.shape) != 2 for p in self.parts):
            raise FormatError("a mixed tensor has at least one part, and each is a matrix")
        across = {p.shape[1 - self.axis] for p in self.parts}
        if len(across) != 1:
            raise FormatError(f"the parts have {sorted(across)} {'rows' if self.axis else 'columns'}, not all the same")
        count = sum(p.shape[self.axis] for p in self.parts)
        if self.order.dtype != torch.int64 or not torch.equal(self.order.sort().values, torch.arange(count)):
            raise FormatError(f"the order names each of {count} {'columns' if self.axis else 'rows'} once")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole."""
        across, count = self.parts[0].shape[1 - self.axis], len(self.order)
        return (count, across) if self.axis == 0 else (across, count)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts, and four for each entry of the order."""
        return sum(p.nbytes for p in self.parts) + 4 * len(self.order)

    @property
    def bits_per_weight(self) -> float:
        """8 * nbytes / number of elements."""
        rows, cols = self.shape
        return 8 * self.nbytes / max(1, rows * cols)

    @property
    def members(self) -> tuple[Tensor, ...]:
        """The rows or columns of each part, as indices of the whole."""
        return torch.split(self.order, [p.shape[self.axis] for p in self.parts])

    @property
    def places(self) -> Tensor:
        """Where each row or column of the whole lies among the parts: the inverse of `order`."""
        return torch.argsort(self.order)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values [rows, cols] in the order of the whole."""
        joined = torch.cat([p.dequantize(dtype) for p in self.parts], self.axis)
        out = torch.empty_like(joined)
        return out.index_copy_(self.axis, self.order, joined)

    def __repr__(self) -> str:
        what = ", ".join(f"{p.shape[self.axis]} as {p.format}" for p in self.parts)
        return f"MixedTensor({'columns' if self.axis else 'rows'}: {what}; shape={self.shape}, {self.bits_per_weight:.3f} bits per weight)"


def quantize_mixed(
    x: Tensor, formats: Sequence[TensorFormat], choice: Tensor, axis: int, scale_rule: ScaleRule = "absmax"
) -> MixedTensor:
    """x [rows, cols] with row (axis 0) or column (1) i as formats[choice[i]]; parts in the order of `formats`, members by number.

    Groups of columns are counted within a part. FormatError for a choice that names no format and for scales that rows of several
    parts would share.
    """
    if x.ndim != 2 or choice.shape != (x.shape[axis],):
        raise FormatError(
            f"a choice names a format for each of the {list(x.shape)} along axis {axis}; got {list(choice.shape)}"
        )
    if choice.numel() and not 0 <= int(choice.min()) <= int(choice.max()) < len(formats):
        raise FormatError(f"the choice names formats 0 to {int(choice.max())}; there are {len(formats)}")
    if axis == 0 and any(fmt.scale is not None and fmt.block[0] != 1 for fmt in formats):
        raise FormatError("rows of different formats cannot share scales; give scales a row or narrower")
    members = [torch.nonzero(choice == i).flatten() for i in range(len(formats))]
    parts = [
        quantize(x.index_select(axis, rows), fmt, scale_rule)
        for rows, fmt in zip(members, formats, strict=True)
        if len(rows)
    ]
    return MixedTensor(tuple(parts), axis, torch.cat(members))
