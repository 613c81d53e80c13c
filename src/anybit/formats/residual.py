"""`ResidualFormat`: a value as the sum of two, the second coding what the first left over.

    spec  = MAIN "~" REST                      (both specs of `TensorFormat`)
    value = main value + rest value

`nvfp4~nvfp4` are the residual channels of ARCQuant (arXiv 2601.07475): two steps of FP4 are about one of FP8. `int4/g64~int4/g64` are two
digits of 4 bits, and `bf16~bf16` splits a float32 into two numbers with 16 bits of mantissa together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from anybit.errors import FormatError
from anybit.formats.tensor_format import TensorFormat

SEPARATOR = "~"


@dataclass(frozen=True)
class ResidualFormat:
    """main codes a tensor, rest codes the tensor minus what main decodes to. parse(str(f)) == f."""

    main: TensorFormat
    rest: TensorFormat

    @property
    def bits(self) -> int:
        """Bits of both codes of an element."""
        return self.main.bits + self.rest.bits

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of both tensors of that shape."""
        return self.main.nbytes(shape) + self.rest.nbytes(shape)

    @classmethod
    def parse(cls, spec: str) -> Self:
        """The value of a spec string. FormatError where it is not two specs of tensor formats with ~ between them."""
        parts = spec.split(SEPARATOR)
        if len(parts) != 2 or not all(parts):
            raise FormatError(f"a residual format is two formats with ~ between them, as nvfp4~nvfp4; got {spec!r}")
        return cls(TensorFormat.parse(parts[0]), TensorFormat.parse(parts[1]))

    def __str__(self) -> str:
        return f"{self.main}{SEPARATOR}{self.rest}"
