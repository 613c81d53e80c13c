"""`TensorFormat`: how a tensor of numbers is scaled, and its spec string.

    spec    = ELEMENT | ELEMENT "/" BLOCK [":" SCALE] ["+z"] ["+t"] | alias
    BLOCK   = "tensor" | "row" | "g" COLS | "b" ROWS "x" COLS        (ROWS, COLS: a number, or "*" for the whole dimension)
    value   = (decode(code) - decode(zero)) * scale * tensor_scale

`int4/g128` is int4 with an fp16 scale for every 128 columns of a row; `e2m1/g16:e4m3fn+t` is NVFP4. The scale is left out of the string
where it is the default: fp32 for `row` and `tensor`, fp16 for blocks. A plain element name is unscaled.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from math import ceil, prod
from typing import Self

from anybit.errors import FormatError
from anybit.formats.floating import Exponent, Float
from anybit.formats.format import Format
from anybit.formats.integer import Int
from anybit.formats.names import TABLE, get

STATIC = "static"
"""What stands behind the slash where one scale is found beforehand for everything that enters a layer."""
ALIASES = {
    "mxfp4": "e2m1/g32:e8m0",
    "mxfp6": "e3m2/g32:e8m0",
    "mxfp8": "e4m3fn/g32:e8m0",
    "nvfp4": "e2m1/g16:e4m3fn+t",
    "dfp16": "int16/tensor:e8m0",
}
"""Names of the field that stand for a spec; `str` gives the spec."""

_BLOCK = re.compile(r"b(\d+|\*)x(\d+|\*)")
_GROUP = re.compile(r"g(\d+)")


@dataclass(frozen=True)
class TensorFormat:
    """An element format, the block of the matrix view that shares a scale, and the formats of the parameters.

    block: (rows, cols), 0 meaning the whole dimension.  scale: None where unscaled; then there is no block, zero or tensor scale.
    zero: the element format where each block has a zero point (integers only), else None.
    tensor_scale: one more float32 factor for the whole tensor.
    """

    element: Format
    block: tuple[int, int] = (0, 0)
    scale: Format | None = None
    zero: Format | None = None
    tensor_scale: bool = False

    def __post_init__(self) -> None:
        name = self.element.name
        if not _named(self.element):
            raise FormatError(
                f"the element format {name!r} is not one that formats.get knows, so it has no spec string"
            )
        if self.element.is_complex:
            raise FormatError(f"tensors hold real numbers; {name} is complex (round and encode it as a Format)")
        if self.element.bits not in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32):
            raise FormatError(f"tensor elements have 1 to 8, 16 or 32 bits; {name} has {self.element.bits}")
        if len(self.block) != 2 or not all(isinstance(n, int) and n >= 0 for n in self.block):
            raise FormatError(f"a block is (rows, cols), each 0 (the whole dimension) or more; got {self.block!r}")
        if self.scale is None:
            if self.block != (0, 0) or self.zero is not None or self.tensor_scale:
                raise FormatError(f"{name} without a scale has no block, zero point or tensor scale")
            return
        if not _is_scale(self.scale):
            raise FormatError(f"scales are fp32, fp16, bf16, e8m0 or an 8-bit floating format; got {self.scale.name}")
        if self.zero is not None and (self.zero != self.element or not isinstance(self.element, Int)):
            raise FormatError(
                f"a zero point needs an integer element and has its format; got {self.zero.name} for {name}"
            )
        if self.zero is not None and self.zero.bits > 8:
            raise FormatError(f"zero points are stored in one byte, so the element has at most 8 bits; {name} has more")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.element.bits

    @staticmethod
    def element_named(name: str) -> Format:
        """The number format of that name, suggesting short names of scaled formats too where there is none."""
        return _element(name, name)

    @classmethod
    def parse(cls, spec: str) -> Self:
        """The value of a spec string or alias. FormatError saying which part is wrong and what it may be."""
        text = ALIASES.get(spec, spec)
        element, slash, rest = text.partition("/")
        if not slash:
            if "+" in element or ":" in element:
                raise FormatError(f"{spec!r}: a scale, zero point or tensor scale needs a block, as in int4/g128+z")
            return cls(_element(element, spec))
        rest, *flags = rest.split("+")
        if flags not in ([], ["z"], ["t"], ["z", "t"]):
            raise FormatError(
                f"{spec!r}: after the block and scale may stand +z, +t or +z+t; got {'+' + '+'.join(flags)!r}"
            )
        where, colon, scale_name = rest.partition(":")
        block = _parse_block(where, spec)
        scale = _element(scale_name, spec) if colon else default_scale(block)
        number = _element(element, spec)
        try:
            return cls(number, block, scale, number if "z" in flags else None, "t" in flags)
        except FormatError as error:
            raise FormatError(f"{spec!r}: {error}") from None

    def __str__(self) -> str:
        if self.scale is None:
            return self.element.name
        scale = "" if self.scale == default_scale(self.block) else f":{self.scale.name}"
        return f"{self.element.name}/{_block_name(self.block)}{scale}{'+z' * (self.zero is not None)}{'+t' * self.tensor_scale}"

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(row blocks, col blocks) of a tensor of that shape, in its matrix view [shape[0], prod(shape[1:])]."""
        rows, cols = shape[0], prod(shape[1:])
        return ceil(rows / (self.block[0] or max(rows, 1))), ceil(cols / (self.block[1] or max(cols, 1)))

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a `QTensor` of that shape: codes with each row padded to a byte, scales, zero points, tensor scale."""
        codes = shape[0] * ceil(prod(shape[1:]) * self.element.bits / 8)
        blocks = prod(self.grid(shape))
        scales = blocks * self.scale.bits // 8 if self.scale else 0
        zeros = blocks if self.zero else 0
        return codes + scales + zeros + 4 * self.tensor_scale


def is_static(spec: str) -> bool:
    """Whether a spec of activations is spelled as a static one (`ops.static`), which is no tensor format."""
    return spec.endswith(f"/{STATIC}")


def default_scale(block: tuple[int, int]) -> Format:
    """fp32 where a scale serves a whole row or tensor, else fp16."""
    return get("fp32" if block in ((0, 0), (1, 0)) else "fp16")


def _named(element: Format) -> bool:
    try:
        return get(element.name) == element
    except FormatError:
        return False


def _is_scale(scale: Format) -> bool:
    return isinstance(scale, Exponent) or (
        isinstance(scale, Float) and (scale.bits == 8 or scale.name in ("fp32", "fp16", "bf16"))
    )


def _element(name: str, spec: str) -> Format:
    try:
        return get(name)
    except FormatError as error:
        if name == spec and (near := difflib.get_close_matches(name.lower(), [*ALIASES, *TABLE], n=3)):
            raise FormatError(f"unknown format {spec!r}; did you mean {' or '.join(near)}?") from None
        raise FormatError(str(error) if name == spec else f"{spec!r}: {error}") from None


def _parse_block(where: str, spec: str) -> tuple[int, int]:
    if where == "tensor":
        return (0, 0)
    if where == "row":
        return (1, 0)
    if match := _GROUP.fullmatch(where):
        sizes = ["1", match[1]]
    elif match := _BLOCK.fullmatch(where):
        sizes = [match[1], match[2]]
    else:
        raise FormatError(
            f"{spec!r}: unknown block {where!r}; blocks are tensor, row, gCOLS (g128) and bROWSxCOLS (b16x32, * for a whole dimension)"
        )
    if any(size.isdigit() and not 1 <= int(size) <= 2**31 for size in sizes):
        raise FormatError(f"{spec!r}: block sizes are 1 or more; got {where!r}")
    rows, cols = (0 if size == "*" else int(size) for size in sizes)
    return rows, cols


def _block_name(block: tuple[int, int]) -> str:
    rows, cols = block
    if block == (0, 0):
        return "tensor"
    if block == (1, 0):
        return "row"
    return f"g{cols}" if rows == 1 else f"b{rows or '*'}x{cols or '*'}"
