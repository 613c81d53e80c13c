"""Products in dynamic fixed point: integers of up to 16 bits, one power of two for a whole tensor (Das et al., arXiv 1802.00930).

A number of P bits is a code of at most 2^(P-1) - 1 in magnitude, times 2^E for all of a tensor, where E is the smallest that clips nothing.
Products of codes have up to 31 bits and are summed in 32, so a sum must be moved on after a chain of them. How long a chain cannot overflow
follows from Cauchy and Schwarz, |sum x w| <= |x| |w| over every span of k, in place of two products for any codes. The paper converts
chains to float32. Here the upper half of a chain's sum moves on and the lower stays, which costs as much and loses nothing:

    high += low >> 16;  low &= 65535;  the whole sum is high * 2^16 + low

so that a result of up to 32768 columns is the float32 nearest to the sum of products, whatever the chains; beyond, the spans of 32768 are
rounded each and added. `chained_product` is the readable reference in numpy of
compiled kernels (native/generic/int16.inl), which `ops.matmul` takes for weights of int16 and activations of int16/tensor:e8m0 too.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.ops.matmul import run_native
from anybit.ops.packed import Packed, prepack
from anybit.tensors import QTensor
from anybit.tensors import encode as encode_tensor
from anybit.tensors.scales import power_of_two

Codes = NDArray[np.int64]
SPANS = (256, 128, 64, 32, 16, 8)
"""Lengths of chains that are tried, longest first; 2 suits any codes but -2^15 on both sides."""
ROOM = 2**31 - 1 - 65535
"""What a chain's sum may reach beside a lower half."""
FORMAT = TensorFormat.parse("int16/tensor:e8m0")


def dfp_encode(x: Tensor, bits: int = 16) -> QTensor:
    """x (any shape of one dimension or more) in dynamic fixed point of `bits` bits (2 to 16), as a QTensor of int16/tensor:e8m0.

    |decode - x| <= half of the scale. FormatError for other widths and where x holds NaN or infinity.
    """
    _check_bits(bits)
    top = x.detach().abs().max() if x.numel() else torch.zeros(())
    if not bool(torch.isfinite(top)):
        raise FormatError("the tensor to encode holds NaN or infinity, for which there is no exponent")
    return encode_tensor(x.detach(), FORMAT, _scale(top, bits).reshape(1, 1))


def dfp_matmul(x: Tensor, w: Tensor | QTensor | Packed, bits: int = 16, bias: Tensor | None = None) -> Tensor:
    """x [..., k] in dynamic fixed point of `bits` bits (2 to 16), times w [n, k] transposed, plus bias [n] -> float32 [..., n].

    w: int16 with a power of two for all of it (`dfp_encode`, or packed), or floats, encoded here with as many bits. The result is the
    float32 nearest to the sum of products of codes, times a power of two (and the bias added); compiled, of each span of 32768 columns.
    The compiled product is NaN where x holds NaN or infinity. FormatError for other widths and weights, and where shapes do not fit.
    """
    _check_bits(bits)
    if not isinstance(x, Tensor) or x.dim() < 1 or not x.dtype.is_floating_point:
        what = f"a tensor of {x.dtype} and {x.dim()} dimensions" if isinstance(x, Tensor) else type(x).__name__
        raise FormatError(f"x is a floating tensor [..., k]; got {what}")
    if isinstance(w, Tensor) and w.dim() != 2:
        raise FormatError(f"the weight is a matrix [n, k]; got {w.dim()} dimensions")
    if isinstance(w, Tensor):
        w = dfp_encode(w, bits)
    if w.format is None or w.format != FORMAT:
        raise FormatError(f"dynamic fixed point is {FORMAT}; the weight is {w.format}")
    n, k = (w.n, w.k) if isinstance(w, Packed) else w.shape
    if x.shape[-1] != k or (bias is not None and bias.shape != (n,)):
        raise FormatError(f"x has {x.shape[-1]} columns and the weight {k}; a bias has {n} numbers")
    if native.load() is not None and n and k and x.device.type == "cpu":
        packed = w if isinstance(w, Packed) else prepack(w)
        if packed.handle is not None:
            return run_native(x, packed, bias, 0, 2 ** (bits - 1) - 1, whole="power")
    source = w.source if isinstance(w, Packed) else w
    assert isinstance(source, QTensor), "packed weights without a handle keep their source"
    return _reference(x, source, bits, bias)


def _reference(x: Tensor, w: QTensor, bits: int, bias: Tensor | None) -> Tensor:
    """`dfp_matmul` by exact sums of integers."""
    given = dfp_encode(x.reshape(-1, x.shape[-1]).float(), bits)
    a, b = integers(given), integers(w)
    sums = chained_product(a, b, chain_length(a, b)).astype(np.float32)
    scale = np.float32(float(given.scales()[0, 0]) * float(w.scales()[0, 0]))
    y = torch.from_numpy(sums * scale).reshape(*x.shape[:-1], w.shape[0])
    return y if bias is None else y + bias.float()


def integers(t: QTensor) -> Codes:
    """The codes of a QTensor of int16 [rows, cols] as numbers."""
    return t.unpacked().numpy().astype(np.uint16).view(np.int16).astype(np.int64)


def chain_length(x: Codes, w: Codes) -> int:
    """How many products of codes x [m, k] and w [n, k] may be summed in 32 bits, in spans that begin at multiples of their length."""
    for span in SPANS:
        if np.sqrt(_squares(x, span)) * np.sqrt(_squares(w, span)) < ROOM:
            return span
    return 2


def _squares(codes: Codes, span: int) -> float:
    """The largest sum of squares of a row over a span."""
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % span))).astype(np.float64)
    return float((padded**2).reshape(len(codes), -1, span).sum(-1).max(initial=0.0))


def chained_product(x: Codes, w: Codes, chain: int) -> Codes:
    """x [m, k] times w [n, k] transposed in chains, their upper halves moved on: int64 [m, n], exact.

    FormatError where a chain overflows 32 bits.
    """
    m, k = x.shape
    low, high = np.zeros((m, len(w)), np.int64), np.zeros((m, len(w)), np.int64)
    for start in range(0, k, chain):
        low = low + x[:, start : start + chain] @ w[:, start : start + chain].T
        if low.size and max(int(low.max()), -1 - int(low.min())) >= 2**31:
            raise FormatError(f"sums of chains of {chain} products do not fit in 32 bits")
        high, low = high + (low >> 16), low & 65535
    return high * 65536 + low


def _scale(top: Tensor, bits: int) -> Tensor:
    """The smallest power of two by which the magnitude `top` is divided to a code."""
    return power_of_two(top.float() / (2 ** (bits - 1) - 1), "ceil")


def _check_bits(bits: int) -> None:
    if bits not in range(2, 17):
        raise FormatError(f"dynamic fixed point has 2 to 16 bits; got {bits}")
