"""`Holder`: a module whose weight is a `QTensor`, kept as the buffers codes, scale, zero and tensor_scale.

The buffers are the checkpoint: `state_dict` holds the canonical packing, kernels repack on first use and forget on change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops import Levels
from anybit.tensors import QTensor
from anybit.tensors.packing import row_bytes
from anybit.tensors.qtensor import scale_dtype

PARTS = ("codes", "scale", "zero", "tensor_scale")


def empty(shape: tuple[int, ...], fmt: TensorFormat, device: torch.device | str | None = None) -> QTensor:
    """A QTensor of zeros of that shape and format, to be loaded into."""
    grid = fmt.grid(shape)
    return QTensor(
        torch.zeros(shape[0], row_bytes(prod(shape[1:]), fmt.bits), dtype=torch.uint8, device=device),
        torch.zeros(grid, dtype=scale_dtype(fmt.scale), device=device) if fmt.scale else None,
        torch.zeros(grid, dtype=torch.uint8, device=device) if fmt.zero else None,
        torch.zeros((), device=device) if fmt.tensor_scale else None,
        shape,
        fmt,
    )


class Holder(nn.Module):
    """Base of the quantized modules. weight: its QTensor; bias: [rows] or None, an ordinary parameter."""

    codes: Tensor
    scale: Tensor | None
    zero: Tensor | None
    tensor_scale: Tensor | None
    levels: Levels = "exact"
    """Of a codebook, as `ops.prepack` has them."""
    kept: tuple[str, ...] = PARTS
    """Buffers whose dtype means something: they follow the device of the module, never its dtype."""

    def __init__(self, weight: QTensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.format = weight.format
        self.shape = weight.shape
        for part in PARTS:
            self.register_buffer(part, getattr(weight, part))
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._packed: Any = None

    @property
    def weight(self) -> QTensor:
        """The weight as a value; a view of the buffers."""
        return QTensor(self.codes, self.scale, self.zero, self.tensor_scale, self.shape, self.format)

    def kernel_weight(self) -> Any:
        """What `ops` multiplies with: its matrix view in the kernels' packing, made on first use and kept;
        off the CPU the QTensor itself."""
        if self._packed is None:
            matrix = replace(self.weight, shape=(self.weight.row_count, self.weight.col_count))
            if self.codes.device.type != "cpu":
                return matrix
            self._packed = ops.prepack(matrix, levels=self.levels)
        return self._packed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # `.half()`, `.to(bfloat16)` must not change what the buffers mean
        kept = {part: getattr(self, part) for part in self.kept}
        super()._apply(fn, recurse)
        for part, before in kept.items():
            after = getattr(self, part)
            if before is not None and after.dtype != before.dtype:
                setattr(self, part, before.to(after.device) if after.device.type != "meta" else before.to("meta"))
        self._forget()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._forget()

    def _forget(self) -> None:
        """Drop what was made from the buffers."""
        self._packed = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_packed": None}  # native memory is rebuilt, not copied or stored

    def extra_repr(self) -> str:
        return f"{list(self.shape)}, {self.format}, {self.weight.bits_per_weight:.2f} bits per weight"
