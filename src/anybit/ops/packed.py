"""`Packed`: a weight in the kernels' own layout, made once from the canonical one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.formats import Int, TensorFormat
from anybit.ops import native
from anybit.tensors import QTensor

Bytes = NDArray[np.uint8]
Order = Literal["tiles", "bits", "nibbles"]
Levels = Literal["exact", "int8"]
LEVELS: tuple[Levels, ...] = get_args(Levels)
"""What a packed codebook keeps of its values: see `prepack`."""
ORDERS: tuple[str, ...] = get_args(Order)
"""How packed integers keep their bits: as codes to unpack, or as planes to be counted or looked up (native/generic/planes.hpp)."""
HOLDERS = (torch.bfloat16, torch.float16, torch.float32)
"""Types that may hold wider elements, in the order they are tried."""
DENSE = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix [n, k] ready to be multiplied with.

    source: the value it was made from, kept only where no kernel takes it (handle None) and the reference must.
    format: of the source; None for plain tensors.  order: of its bits.  levels: of its codebook.
    kept: columns that multiply x as it is, see `keep_columns`.
    """

    n: int
    k: int
    format: TensorFormat | None
    handle: Any = None
    source: QTensor | Tensor | None = None
    order: Order = "tiles"
    levels: Levels = "exact"
    kept: tuple[Tensor, Tensor] | None = None
    kernels: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What `matmul` has chosen for numbers of rows and activations before."""
    quick: list[tuple[Any, int, Any]] = field(default_factory=list, repr=False)
    """The last of it as one (activations, edition of the costs, product in C); empty where there is none."""

    @property
    def name(self) -> str:
        """The spec of the format, "plain" for plain tensors."""
        return "plain" if self.format is None else str(self.format)

    @property
    def element(self) -> str:
        """What the kernels unpack; see `element`."""
        if self.handle is None:
            return ""
        if self.order != "tiles":
            return f"integer{self.handle.bits}"
        if self.handle.kind not in ("integer", "codebook"):
            return str(self.handle.kind)  # a float type, or int16
        assert self.format is not None, "plain tensors are no codes"
        if self.handle.kind == "integer":
            return f"integer{self.handle.bits}"
        return f"{'byte' if self.levels == 'int8' else codebook(self.format)}{self.handle.bits}"

    @property
    def integer(self) -> bool:
        """Whether activations of up to 8 bits are multiplied with it as integers; the element int16 takes up to 16 bits."""
        return self.handle is not None and (self.order != "tiles" or bool(self.handle.integer_form))

    @property
    def nbytes(self) -> int:
        """Bytes a multiplication reads."""
        if self.handle is not None:
            return int(self.handle.nbytes)
        held = 0 if self.source is None else int(self.source.nbytes)
        return held if self.kept is None else held + self.kept[1].nbytes

    def refuse_kept(self, what: str) -> None:
        """ValueError where columns are kept apart, which `what` does not know of."""
        if self.kept is not None:
            raise ValueError(f"{what} takes no weight with columns kept apart (`keep_columns`); give it without them")

    @property
    def group(self) -> int:
        """Columns that share a scale as packed; 0 where there are no scales."""
        return 0 if self.handle is None else int(self.handle.group)


def prepack(w: QTensor | Tensor, order: Order = "tiles", levels: Levels = "exact") -> Packed:
    """Repack a matrix [n, k] (both at least 1) for the kernels; a copy, after which `w` may go.

    Integers of 1 to 8 bits, int16 and codebooks or floats of up to 4 bits stay as small as they are; wider floats are held
    as bf16 or fp16 values (whichever is exact), with their scales.

    order: "tiles" are for any activations.  "bits" and "nibbles" keep integers as planes of bits for signed integer activations of 2 to 8
    bits with a scale a row or group: products are counts of bits (arXiv 2408.08554) or lookups of four bits at a time in tables of 16
    sums (T-MAC, EuroSys 2025), with the same results bit for bit.  Which is faster depends on the machine (benchmarks/NOTES.md).

    levels: of a codebook whose values are no integers of 8 bits in a power of two (nf4; not e2m1). "exact" multiplies activations of int8
    with 16 bits of them, in two digits; "int8" rounds the values to 127 steps of the largest (`int8_levels`), which then is the weight for
    any activations: off by at most 0.4 % of the largest value, and as fast as integers of as many bits. All other weights are the same
    in both.

    Raises ValueError for anything but a matrix, for unknown orders and levels, and for planes of what are no integers of up to 8 bits.
    """
    if order not in ORDERS:
        raise ValueError(f"bits are packed in the order {', '.join(ORDERS)}; got {order!r}")
    if levels not in LEVELS:
        raise ValueError(f"levels of a codebook are {' or '.join(LEVELS)}; got {levels!r}")
    if len(w.shape) != 2:
        raise ValueError(f"a packed weight is a matrix [out, in]; got the shape {tuple(w.shape)}")
    n, k = w.shape
    module = native.load()
    fmt = w.format if isinstance(w, QTensor) else None
    if order != "tiles":
        if module is None or not n or not k or not isinstance(w, QTensor) or w.device.type != "cpu":
            raise ValueError("planes of bits need a quantized matrix on the CPU and the native module")
        return Packed(n, k, fmt, _planes(module, w, order), order=order)
    if module is None or not n or not k or w.device.type != "cpu":
        return Packed(n, k, fmt, None, w)
    if isinstance(w, QTensor):
        return Packed(n, k, fmt, _pack(module, w, levels), levels=levels)
    values = w.detach().contiguous() if w.dtype in DENSE else w.detach().float().contiguous()
    handle = module.pack_dense(_bytes(values), n, k, DENSE[values.dtype], 1, 0, "none", np.empty(0, np.uint8))
    return Packed(n, k, None, handle)


def keep_columns(w: Packed, columns: Tensor, values: Tensor) -> Packed:
    """`w` with `columns` [c] (ascending) of its own: values [n, c], which multiply x as it is; no copy of the codes.

    The rest of x is rounded as if it were zero there, so that a few large columns do not decide its scales (LLM.int8(), NeurIPS 2022,
    section 3.2), and what `w` holds in these columns, which must be finite, is multiplied by zero.  x is read once, and the sums meet
    before anything is written.
    values: fp32, fp16 or bf16, kept as they are; products and sums are of float32, but on AMX tiles (int8 activations of more than 16
    rows, values of bf16) those of x in two parts of bf16, 16 significant bits.

    Raises ValueError for weights packed as planes and where columns or values do not fit.
    """
    count = columns.numel()
    if w.order != "tiles" or w.kept is not None:
        raise ValueError("columns are kept beside a weight packed as tiles that has none yet")
    if columns.dtype != torch.int64 or columns.dim() != 1 or not count or not bool((columns.diff() > 0).all()):
        raise ValueError("kept columns are int64 numbers [c], at least one, ascending")
    if not 0 <= int(columns[0]) <= int(columns[-1]) < w.k:
        raise ValueError(f"kept columns lie among the weight's {w.k}; got {int(columns[0])} to {int(columns[-1])}")
    if values.shape != (w.n, count) or values.dtype not in DENSE:
        held = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"kept columns are fp32, fp16 or bf16 values [{w.n}, {count}]; got {held}")
    handle, values = w.handle, values.detach().contiguous()
    if handle is not None:
        handle = native.loaded().keep_columns(handle, columns.numpy(), _bytes(values), DENSE[values.dtype])
    return Packed(w.n, w.k, w.format, handle, w.source, w.order, w.levels, (columns, values))


def _pack(module: Any, w: QTensor, levels: Levels = "exact") -> Any:
    fmt = w.format
    n, k = w.shape
    scale_type, scale = _scale(w)
    factor = 1.0 if w.tensor_scale is None else float(w.tensor_scale)
    rows, cols = fmt.block
    bits = fmt.element.bits
    if bits <= 4 or (bits <= 8 and _evenly_spaced(fmt)):
        zero = None if w.zero is None else _bytes(w.zero)
        codes = w.codes.contiguous().numpy()
        rounded = levels == "int8"
        return module.pack(codes, k, bits, _table(fmt), rows, cols, scale_type, scale, zero, factor, rounded)
    if w.zero is not None:
        dense = w.dequantize()
        return module.pack_dense(_bytes(dense), n, k, "fp32", 1, 0, "none", np.empty(0, np.uint8))
    if _words(fmt):
        return module.pack_dense(_bytes(w.codes), n, k, "int16", rows, cols, scale_type, scale, factor)
    values = fmt.element.decode(w.unpacked())
    for dtype in HOLDERS:
        held = values.to(dtype)
        if torch.equal(held.float(), values):
            break
    return module.pack_dense(_bytes(held), n, k, DENSE[dtype], rows, cols, scale_type, scale, factor)


def _planes(module: Any, w: QTensor, order: Order) -> Any:
    handle = _pack(module, w)
    if handle.kind != "integer":
        raise ValueError(f"planes of bits are made of integers of 1 to 8 bits; {w.format} is packed as {handle.kind}")
    return module.planes(handle, order)


def element(fmt: TensorFormat) -> str:
    """What kernels unpack of a weight of this format: integerN, byteN or wordN (codebooks whose levels are one or two 8-bit digits), int16,
    or the float type that holds wider values."""
    bits = fmt.element.bits
    if _words(fmt):
        return "int16"
    if fmt.scale is None:
        return fmt.element.name if fmt.element.name in DENSE.values() else "fp32"
    if bits <= 8 and _evenly_spaced(fmt):
        return f"integer{bits}"
    if bits <= 4:
        return f"{codebook(fmt)}{bits}"
    if fmt.zero is not None:
        return "fp32"
    values = torch.from_numpy(np.array(fmt.element.values if bits <= 16 else [], np.float32))
    return next((DENSE[dtype] for dtype in HOLDERS if torch.equal(values.to(dtype).float(), values)), "fp32")


def codebook(fmt: TensorFormat) -> str:
    """ "byte" where the levels above the lowest are integers of 8 bits in some power of two, else "word"."""
    above = np.asarray(fmt.element.values) - np.min(fmt.element.values)
    scaled = (above * 2.0**power for power in range(9))
    return "byte" if any(np.array_equal(one, np.rint(one)) and one.max() <= 255 for one in scaled) else "word"


def int8_levels(fmt: TensorFormat) -> NDArray[np.float32]:
    """The value of every code as `prepack(…, levels="int8")` has it: the nearest of 127 steps of the largest magnitude."""
    table: NDArray[np.float32] = np.nan_to_num(_table(fmt))
    if fmt.element.bits > 4 or _evenly_spaced(fmt) or codebook(fmt) == "byte":
        return table
    step = np.abs(table).max() / np.float32(127)
    rounded: NDArray[np.float32] = np.rint(table / step) * step
    return rounded


def _words(fmt: TensorFormat) -> bool:
    """Whether codes are two's complement of 16 bits, which kernels take as they are."""
    return fmt.element == Int(16)


def _evenly_spaced(fmt: TensorFormat) -> bool:
    """Whether the values are integers in a row, as those of int, uint and (every second) bipolar are; narrow ones lack a code."""
    values = np.sort(fmt.element.values)
    return len(values) >= (1 << fmt.bits) - 1 and len(np.unique(np.diff(values))) <= 1


def _table(fmt: TensorFormat) -> NDArray[np.float32]:
    """The value of every code, NaN where a code has none."""
    table = np.full(1 << fmt.bits, np.nan, np.float32)
    values = np.asarray(fmt.element.values)
    table[fmt.element.encode(values)] = values
    return table


def _scale(w: QTensor) -> tuple[str, Bytes]:
    """(name of the scale type for the kernels, its bytes)."""
    if w.scale is None or w.format.scale is None:
        return "none", np.empty(0, np.uint8)
    name = w.format.scale.name
    if name in ("fp32", "fp16", "bf16", "e8m0"):
        return name, _bytes(w.scale)
    return "fp32", _bytes(w.format.scale.decode(w.scale).float())  # 8-bit scales: their float32 values are exact


def _bytes(t: Tensor) -> Bytes:
    flat: Bytes = t.detach().contiguous().flatten().view(torch.uint8).numpy()
    return flat
