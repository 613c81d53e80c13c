"""What must hold for qtensor.py; the oracle dequantizes one element at a time from the definition."""

from __future__ import annotations

import dataclasses
from math import prod

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import Int, TensorFormat
from anybit.tensors import QTensor, pack_bits, quantize

SPECS = [
    "int4/g8", "int3/g8+z", "int8/row", "int5/tensor", "uint4/b4x8+z", "int2/b4x*", "int4/b*x1", "mxfp4", "mxfp6", "mxfp8", "nvfp4",
    "nf4/g16", "ternary/row", "bipolar3/g8:bf16", "e5m2/tensor", "dfp16", "int16/g8", "bf16", "e4m3fn", "fp32",
    "int4/g8:e4m3fn+z+t", "int1/g8", "int7n/g8:fp32",
]  # fmt: skip
ML_DTYPES = {
    "bf16": ml_dtypes.bfloat16, "fp32": np.float32, "e4m3fn": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def by_definition(q: QTensor) -> np.ndarray:
    """(decode(code) - decode(zero)) * scale * tensor_scale in float64, element by element."""
    fmt, rows, cols = q.format, q.shape[0], prod(q.shape[1:])
    height, width = fmt.block[0] or rows, fmt.block[1] or cols
    streams = [int.from_bytes(bytes(row.tolist()), "little") for row in q.codes]
    out = np.empty((rows, cols))

    def element(code: int) -> float:
        if isinstance(fmt.element, Int):
            return float(code - (1 << fmt.bits) if fmt.element.signed and code >> (fmt.bits - 1) else code)
        if fmt.element.name in ML_DTYPES:
            kind = {8: np.uint8, 16: np.uint16, 32: np.uint32}[fmt.bits]
            return float(np.array([code], kind).view(ML_DTYPES[fmt.element.name])[0])
        return float(fmt.element.values[code])

    for r in range(rows):
        for c in range(cols):
            value = element(streams[r] >> (c * fmt.bits) & (1 << fmt.bits) - 1)
            if q.zero is not None:
                value -= element(int(q.zero[r // height, c // width]))
            if q.scale is not None and fmt.scale is not None:
                stored = q.scale[r // height, c // width]
                if fmt.scale.name == "e8m0":
                    value *= 2.0 ** (int(stored) - 127)
                elif fmt.scale.name == "e4m3fn":
                    value *= float(np.array([int(stored)], np.uint8).view(ml_dtypes.float8_e4m3fn)[0])
                else:
                    value *= float(stored)
            if q.tensor_scale is not None:
                value *= float(q.tensor_scale)
            out[r, c] = value
    return out.reshape(q.shape)


def example(spec: str, shape: tuple[int, ...] = (9, 37)) -> QTensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return quantize(x, TensorFormat.parse(spec))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", [(9, 37), (6, 2, 3, 3), (5, 8), (4,), (0, 8), (3, 0)])
def test_values_are_as_defined(spec: str, shape: tuple[int, ...]) -> None:
    q = example(spec, shape)
    # Two float32 products: scale * tensor scale, and value * that.
    np.testing.assert_allclose(q.dequantize().numpy(), by_definition(q), rtol=2 * 2.0**-24, atol=0)
    assert q.dequantize(torch.float64).dtype == torch.float64
    assert torch.equal(q.dequantize(torch.bfloat16), q.dequantize().bfloat16())


@pytest.mark.parametrize("spec", SPECS)
def test_bytes_and_bits_are_those_of_the_stored_tensors(spec: str) -> None:
    q = example(spec)
    assert q.nbytes == sum(t.nbytes for t in (q.codes, q.scale, q.zero, q.tensor_scale) if t is not None)
    assert q.nbytes == q.format.nbytes(q.shape)
    assert q.bits_per_weight == 8 * q.nbytes / (9 * 37)
    assert set(q.tensors()) == {"codes"} | {n for n in ("scale", "zero", "tensor_scale") if getattr(q, n) is not None}


@pytest.mark.parametrize("spec", SPECS)
def test_rows_are_rows_of_the_values(spec: str) -> None:
    q = example(spec, (12, 10))
    for a, b in ((4, 8), (8, 12), (0, 12), (4, 4)):
        part = q.rows(a, b)
        assert part.shape == (b - a, 10)
        assert torch.equal(part.dequantize(), q.dequantize()[a:b])


def test_rows_that_cut_a_block_or_lie_outside_are_refused() -> None:
    q = example("int4/b4x8", (10, 16))
    assert torch.equal(q.rows(8, 10).dequantize(), q.dequantize()[8:])
    with pytest.raises(FormatError, match="rows 2 to 8 cut a block of 4 rows"):
        q.rows(2, 8)
    with pytest.raises(FormatError, match="rows 4 to 6 cut a block"):
        q.rows(4, 6)
    with pytest.raises(FormatError, match="not within the 10 rows"):
        q.rows(4, 12)


def test_parameters_decode() -> None:
    q = example("int4/g8:e4m3fn+z+t")
    scales, zeros = q.scales(), q.zeros()
    assert q.tensor_scale is not None and q.scale is not None and q.zero is not None and zeros is not None
    raw = q.scale.numpy().view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    assert np.array_equal(scales.numpy(), raw * q.tensor_scale.numpy())
    assert zeros.tolist() == [[z - 16 if z > 7 else z for z in row] for row in q.zero.tolist()]
    assert example("int4/g8").zeros() is None
    assert example("bf16").scales().tolist() == [[1.0]]
    assert q.unpacked().shape == (9, 37) and q.unpacked().max() < 16


def test_it_is_a_frozen_value_that_says_what_it_is() -> None:
    q = example("int4/g8")
    with pytest.raises(dataclasses.FrozenInstanceError):
        q.shape = (1,)  # type: ignore[misc]
    moved = q.to("meta")
    assert moved.device.type == "meta" and moved.shape == q.shape and q.device.type == "cpu"
    assert repr(q) == f"QTensor(int4/g8, shape=(9, 37), {q.bits_per_weight:.3f} bits per weight)"


def parts(**changes: Tensor | None) -> dict[str, Tensor | None]:
    good: dict[str, Tensor | None] = {
        "codes": pack_bits(torch.zeros(4, 16, dtype=torch.uint8), 4),
        "scale": torch.ones(4, 2, dtype=torch.float16),
        "zero": torch.zeros(4, 2, dtype=torch.uint8),
        "tensor_scale": torch.ones(()),
    }
    return good | changes


@pytest.mark.parametrize(("changes", "message"), [
    ({"codes": torch.zeros(4, 7, dtype=torch.uint8)}, r"codes .* must be uint8 \[4, 8\]; got uint8 \[4, 7\]"),
    ({"codes": torch.zeros(4, 8)}, r"must be uint8 \[4, 8\]; got float32"),
    ({"scale": torch.ones(4, 2)}, r"scale .* must be float16 \[4, 2\]; got float32 \[4, 2\]"),
    ({"scale": torch.ones(4, dtype=torch.float16)}, r"got float16 \[4\]"),
    ({"scale": None}, "scale .* got none"),
    ({"zero": None}, r"zero .* must be uint8 \[4, 2\]; got none"),
    ({"tensor_scale": torch.ones(1)}, r"tensor_scale .* must be float32 \[\]; got float32 \[1\]"),
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Tensor | None], message: str) -> None:
    fmt = TensorFormat.parse("int4/g8+z+t")
    QTensor(**parts(), shape=(4, 16), format=fmt)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=message):
        QTensor(**parts(**changes), shape=(4, 16), format=fmt)  # type: ignore[arg-type]


def test_parts_that_the_format_lacks_are_refused() -> None:
    with pytest.raises(FormatError, match=r"zero .* must be none"):
        QTensor(**parts(), shape=(4, 16), format=TensorFormat.parse("int4/g8"))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"the shape \(\)"):
        QTensor(**parts(), shape=(), format=TensorFormat.parse("int4/g8+z+t"))  # type: ignore[arg-type]


def test_columns_of_a_quantized_matrix() -> None:
    w = torch.randn(6, 300)
    for spec in ("int4/g32", "uint3/g8+z", "int8/row", "e2m1/g16:e4m3fn+t", "bf16"):
        q = quantize(w, TensorFormat.parse(spec))
        values = q.dequantize()
        for start, stop in ((0, 300), (32, 96), (64, 300), (96, 96)):
            assert torch.equal(q.columns(start, stop).dequantize(), values[:, start:stop])
    q = quantize(w, TensorFormat.parse("int3/g8"))
    with pytest.raises(FormatError, match="columns 4 to 16 cut a block of 8 columns of int3/g8"):
        q.columns(4, 16)
    with pytest.raises(FormatError, match="not within the 300 columns"):
        q.columns(0, 301)
    with pytest.raises(FormatError, match="3 bits do not begin and end at whole bytes"):
        quantize(w, TensorFormat.parse("int3/row")).columns(4, 16)
