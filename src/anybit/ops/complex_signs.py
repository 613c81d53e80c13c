"""Products of complex numbers with 1, i, -1, -i, which are additions, subtractions and swaps (iFairy, arXiv 2508.05571).

With roots a + ib, of which one of a and b is 0 and the other a sign, and integer x = u + iv a product is four sums without multiplications,

    A = sum u a     B = sum v b     C = sum u b     D = sum v a
    Re sum x w = re A - im B        Im sum x w = im C + re D        (re, im: scales of the axes; conj(x) turns the signs of B and D)

a and b need three values each. Turned by 45 degrees, (1 + i)(a + ib) = p + iq, a root has two plain signs, p = a - b and q = a + b, so that
two planes of one bit, p above q, hold two bits a complex number and are an ordinary matrix for the integer kernels:

    A = (sum u p + sum u q) / 2     C = (sum u q - sum u p) / 2     and B, D likewise of v

The sums are integers below 2^24, exact in float32, so kernels and the reference (numpy) agree bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.ops.matmul import run_native
from anybit.ops.packed import Packed, prepack
from anybit.ops.reference import integer_act
from anybit.tensors import QTensor
from anybit.tensors.complex_signs import ComplexSigns
from anybit.tensors.packing import pack_bits

INT8 = TensorFormat.parse("int8/row")
_SIGNS = TensorFormat.parse("bipolar1")
_P, _Q = torch.tensor([1, 0, 0, 1], dtype=torch.uint8), torch.tensor([1, 1, 0, 0], dtype=torch.uint8)
"""Whether p and q of i^code are positive."""


@dataclass(frozen=True, eq=False)
class ComplexPacked:
    """`ComplexSigns` in the kernels' own layout: p above q, [2n, k], a bit each."""

    planes: Packed
    scale_re: float
    scale_im: float
    shape: tuple[int, int]

    @staticmethod
    def of(w: ComplexSigns) -> ComplexPacked:
        """Made once, after which `w` may go."""
        n, k = w.shape
        codes = w.unpacked().long()
        bits = pack_bits(torch.cat([_P[codes], _Q[codes]]), 1)
        planes = prepack(QTensor(bits, None, None, None, (2 * n, k), _SIGNS))
        return ComplexPacked(planes, w.scale_re, w.scale_im, (n, k))

    @property
    def nbytes(self) -> int:
        """Bytes a product reads."""
        return self.planes.nbytes


def complex_matmul(
    x: Tensor, w: ComplexSigns | ComplexPacked, act: TensorFormat | None = INT8, conjugate: bool = False
) -> Tensor:
    """x [..., k] complex times w [n, k] transposed (not conjugated) -> complex64 [..., n].

    act: intM/row (2 to 8 bits) rounds real and imaginary parts, with a scale each a row; None multiplies them as they are, in float32.
    conjugate: of x, as in the paper. A packed weight costs two bits a number. FormatError for other activations, and for shapes that do not
    fit.
    """
    levels = _check(x, w, act)
    n, k = w.shape
    parts = torch.cat([x.real.reshape(-1, k), x.imag.reshape(-1, k)]).detach().float()
    m = len(parts) // 2
    codes, scale = _integers(parts, levels)
    packed = w if isinstance(w, ComplexPacked) else ComplexPacked.of(w) if native.load() is not None else None
    if packed is not None and packed.planes.handle is not None:
        sums = run_native(codes, packed.planes, None, -1 if levels == 0 else 0, levels or 127)
        p, q = sums[:, :n], sums[:, n:]
        # Twice the sums of x a and of x b; halved here, where they are whole and even, and not in the scale, which may be subnormal.
        along, across = (p + q) / 2, (q - p) / 2
    else:
        along, across = _sums(codes, w, exact=levels > 0)
    re, im = scale * w.scale_re, scale * w.scale_im
    sign = -1.0 if conjugate else 1.0
    y = torch.empty(m, n, 2)
    torch.sub(along[:m] * re[:m], across[m:] * (sign * im[m:]), out=y[..., 0])
    torch.add(across[:m] * im[:m], along[m:] * (sign * re[m:]), out=y[..., 1])
    return torch.view_as_complex(y).reshape(*x.shape[:-1], n)


def _integers(parts: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """(codes [rows, k], scale [rows, 1]); the numbers themselves and ones where there are no levels."""
    if levels == 0 or not parts.numel():
        return parts, torch.ones(len(parts), 1)
    scale = parts.abs().amax(1, keepdim=True) / levels
    scale = torch.where(scale.isfinite(), scale, torch.nan)
    # a row's largest code is `levels`, so that the kernels, which round rows of their own, find the scale 1
    return torch.where(scale > 0, parts / scale, 0.0).round_(), scale


def _sums(codes: Tensor, w: ComplexSigns | ComplexPacked, exact: bool) -> tuple[Tensor, Tensor]:
    """Sums of x a and of x b: the readable reference, in integers where x is such."""
    if isinstance(w, ComplexPacked):
        source = w.planes.source
        assert isinstance(source, QTensor), "packed weights without a handle keep their source"
        p, q = source.dequantize().numpy().reshape(2, *w.shape)
        a, b = (p + q) / 2, (q - p) / 2
    else:
        roots = formats.get("i2c").decode(w.unpacked().numpy())
        a, b = roots.real, roots.imag
    rows, dtype = codes.numpy(), np.int64 if exact else np.float32
    found = [torch.from_numpy((rows.astype(dtype) @ part.astype(dtype).T).astype(np.float32)) for part in (a, b)]
    return found[0], found[1]


def _check(x: Tensor, w: ComplexSigns | ComplexPacked, act: TensorFormat | None) -> int:
    """The largest code of x; 0 where it stays as it is."""
    k = w.shape[1]
    if not x.is_complex():
        raise FormatError(f"complex signs multiply complex numbers; got {x.dtype}")
    if x.shape[-1] != k:
        raise FormatError(f"x has {x.shape[-1]} columns, the weight {k}")
    if act is None:
        return 0
    integers = integer_act(act)
    if integers is None or integers.group:
        raise FormatError(
            f"activations of complex signs are signed integers of 2 to 8 bits with a scale a row; got {act}"
        )
    if 2 * k * integers.levels >= 2**24:
        raise FormatError(
            f"sums of {k} codes of {integers.bits} bits are not exact in float32; take fewer columns or bits"
        )
    return integers.levels
