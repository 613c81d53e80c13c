"""From numbers to codes: the scales of blocks, and rounding against the scales as they are stored.

The matrix is read in chunks of rows; beside the input and the result, memory holds a few chunks and the table of scales.
"""

from __future__ import annotations

from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Exponent, Key, Mode, TensorFormat
from anybit.formats.rounding import advance
from anybit.tensors import blocks
from anybit.tensors.fused import quantize_absmax
from anybit.tensors.packing import pack_bits, row_bytes
from anybit.tensors.qtensor import QTensor
from anybit.tensors.scale_exact import exact_parameters
from anybit.tensors.scale_search import mse_parameters
from anybit.tensors.scale_statistics import four_over_six_parameters, gaussian_parameters, second_ratio
from anybit.tensors.scales import PowerRounding, load_scale, range_parameters, store_scale, tensor_factor, value_range

ScaleRule = Literal["absmax", "mse", "exact", "four_over_six", "gaussian"]
SCALE_RULES: tuple[str, ...] = get_args(ScaleRule)


def quantize(
    x: Tensor,
    fmt: TensorFormat,
    scale_rule: ScaleRule = "absmax",
    mode: Mode = "nearest_even",
    importance: Tensor | None = None,
    key: Key | None = None,
    power: PowerRounding | None = None,
) -> QTensor:
    """x (floating, any shape of one dimension or more) -> QTensor: `block_scales`, then `encode`.

    importance: weights of the squared error for scale_rule "mse", "exact" and "four_over_six", [cols] (such as the diagonal of a
    Hessian) or [rows, cols].
    FormatError where x holds NaN or infinity (unscaled formats saturate infinity, as `Format` does).
    """
    if not isinstance(fmt, TensorFormat):
        raise FormatError(f"expected a TensorFormat, as TensorFormat.parse('int4/g128') gives; got {fmt!r}")
    if fmt.scale is None:
        return encode(x, fmt, mode=mode, key=key)
    if (
        scale_rule == "absmax"
        and power is None
        and (fused := quantize_absmax(x, matrix_view(x), fmt, mode, key)) is not None
    ):
        return fused
    scale, zero, tensor_scale = block_scales(x, fmt, scale_rule, importance, power)
    return encode(x, fmt, scale, zero, tensor_scale, mode, key)


def block_scales(
    x: Tensor,
    fmt: TensorFormat,
    rule: ScaleRule = "absmax",
    importance: Tensor | None = None,
    power: PowerRounding | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(scale, zero, tensor_scale) of x as float32 values that their formats hold exactly.

    scale and zero are [row blocks, col blocks]; zero is None without `+z`, tensor_scale (a scalar) None without `+t`.
    absmax         the largest magnitude of a block becomes the largest value of the element format (`tensors.scales`)
    mse            a search for the scale of least squared error, never worse than absmax (`tensors.scale_search`)
    exact          the scale of least squared error (`tensors.scale_exact`); no zero points, blocks of moderate size
    four_over_six  the largest magnitude becomes the largest or the second largest value, whichever errs less (NVFP4: 6 or 4)
    gaussian       the best scale for normal numbers of the block's root mean square, as Quartet (`tensors.scale_statistics`)
    power: for e8m0 scales under absmax and gaussian, how the wanted scale is rounded to a power of two; None: as OCP says,
    and "four_thirds" under gaussian.
    """
    if rule not in SCALE_RULES:
        raise FormatError(f"unknown scale rule {rule!r}; known: {', '.join(SCALE_RULES)}")
    if fmt.scale is None:
        raise FormatError(f"{fmt} is unscaled, so it has no block scales")
    if power is not None and not (isinstance(fmt.scale, Exponent) and rule in ("absmax", "gaussian")):
        raise FormatError(
            f"rounding to powers of two is for e8m0 scales under absmax and gaussian; got {fmt} and {rule}"
        )
    matrix = matrix_view(x)
    low, high = value_range(matrix, fmt)
    tensor_scale = tensor_factor(low, high, fmt, second_ratio(fmt) if rule == "four_over_six" else 1.0)
    if rule == "mse":
        scale, zero = mse_parameters(matrix, fmt, low, high, tensor_scale, importance)
    elif rule == "exact":
        scale, zero = exact_parameters(matrix, fmt, low, high, tensor_scale, importance)
    elif rule == "four_over_six":
        scale, zero = four_over_six_parameters(matrix, fmt, low, high, tensor_scale, importance)
    elif rule == "gaussian":
        scale, zero = gaussian_parameters(matrix, fmt, tensor_scale, power)
    else:
        scale, zero = range_parameters(low, high, fmt, tensor_scale, power=power)
    return scale, zero, tensor_scale


def encode(
    x: Tensor,
    fmt: TensorFormat,
    scale: Tensor | None = None,
    zero: Tensor | None = None,
    tensor_scale: Tensor | None = None,
    mode: Mode = "nearest_even",
    key: Key | None = None,
) -> QTensor:
    """x with given parameters (float values, rounded here to their formats) -> QTensor; code = encode(x / scale + zero).

    x / scale uses the scale as stored. A block whose scale is 0 decodes to 0. `key` is for mode "stochastic": element i of
    the matrix (row-major, columns padded to whole blocks) uses number i of the key's stream.
    """
    matrix = matrix_view(x)
    rows, cols = matrix.shape
    element, (tall, wide), grid = fmt.element, fmt.block, fmt.grid((rows, cols))
    stored_scale = stored_zero = divisor = offset = None
    if fmt.tensor_scale:
        tensor_scale = _required(tensor_scale, "tensor_scale", fmt, ()).to(torch.float32)
    if fmt.scale is not None:
        stored_scale = store_scale(_required(scale, "scale", fmt, grid), fmt.scale)
        divisor = load_scale(stored_scale, fmt.scale)
        divisor = divisor if tensor_scale is None else divisor * tensor_scale
        divisor = torch.where(divisor == 0, 1.0, divisor)
    if fmt.zero is not None:
        stored_zero = fmt.zero.encode(_required(zero, "zero", fmt, grid).float())
        offset = fmt.zero.decode(stored_zero)
    codes = torch.empty(rows, row_bytes(cols, fmt.bits), dtype=torch.uint8, device=x.device)
    for band in blocks.bands(rows, cols, tall):
        for a, b in band:
            value = blocks.blocked(matrix[a:b].float(), (tall, wide))
            if divisor is not None:
                value = value / blocks.of_rows(divisor, a, b, tall)
            if offset is not None:
                value = value + blocks.of_rows(offset, a, b, tall)
            chunk = element.encode(value, mode, advance(key, a * value.shape[2] * value.shape[3]))
            codes[a:b] = pack_bits(blocks.unblocked(chunk, b - a, cols), fmt.bits)
    return QTensor(codes, stored_scale, stored_zero, tensor_scale, tuple(x.shape), fmt)


def matrix_view(x: Tensor) -> Tensor:
    """x as [shape[0], prod(shape[1:])]; FormatError where it is no tensor, has no dimension or is not floating."""
    if not isinstance(x, Tensor):
        raise FormatError(f"quantization takes torch tensors; got {type(x).__name__}")
    if x.ndim == 0 or not x.is_floating_point():
        raise FormatError(
            f"quantization takes floating tensors of one or more dimensions; got {str(x.dtype).removeprefix('torch.')} "
            f"of shape {tuple(x.shape)}"
        )
    return x.detach().reshape(x.shape[0], prod(x.shape[1:]))


def _required(part: Tensor | None, name: str, fmt: TensorFormat, shape: tuple[int, ...]) -> Tensor:
    if part is None:
        raise FormatError(f"encoding to {fmt} needs {name}")
    if tuple(part.shape) != shape:
        raise FormatError(f"the {name} given for {fmt} must have the shape {list(shape)}; got {list(part.shape)}")
    return part
