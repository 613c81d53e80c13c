"""What must hold for fourth_roots.py. Oracle: the angles and the exhaustive distances of complex numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat, get

I2C = get("i2c")
ROOTS = np.array([1, 1j, -1, -1j])


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_the_nearest_root_by_distance(dtype: type) -> None:
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((40, 50)) + 1j * rng.standard_normal((40, 50))).astype(dtype)
    wanted = np.argmin(np.abs(z[..., None] - ROOTS), -1)
    codes = I2C.encode(z)
    assert np.array_equal(codes, wanted) and codes.dtype == np.uint8
    assert np.array_equal(I2C.round(z), ROOTS[wanted]) and I2C.round(z).dtype == dtype
    t = torch.from_numpy(z)
    assert np.array_equal(I2C.encode(t).numpy(), wanted) and I2C.round(t).dtype == t.dtype
    assert np.array_equal(I2C.round(t).numpy(), I2C.round(z))
    assert np.array_equal(I2C.decode(codes), ROOTS[wanted]) and I2C.decode(codes).dtype == np.complex64
    assert I2C.decode(torch.from_numpy(codes)).dtype == torch.complex64


def test_ties_turn_counter_clockwise_as_in_the_paper() -> None:
    z = np.array([1 + 1j, -1 + 1j, -1 - 1j, 1 - 1j, 0, 1, 1j, -1, -1j])
    assert I2C.encode(z).tolist() == [1, 2, 3, 0, 0, 0, 1, 2, 3]


def test_real_numbers_have_no_imaginary_part() -> None:
    assert I2C.encode(np.array([2.0, -3.0, 0.0])).tolist() == [0, 2, 0]
    assert I2C.round(torch.tensor([2.0, -3.0])).tolist() == [1, -1]


def test_one_bit_a_real_number_has_the_error_of_a_sign() -> None:
    # Gaussian parts: with the scale E|larger part|, mean squared error 1 - 2/pi, as a real sign has.
    rng = np.random.default_rng(1)
    z = rng.standard_normal(200_000) + 1j * rng.standard_normal(200_000)
    root = I2C.round(z)
    scale = np.mean((np.conj(root) * z).real)
    assert np.mean(np.abs(z - scale * root) ** 2) / np.mean(np.abs(z) ** 2) == pytest.approx(1 - 2 / np.pi, abs=2e-3)


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(FormatError, match="nearest root only"):
        I2C.round(np.array([1j]), "up")
    with pytest.raises(FormatError, match="holds NaN"):
        I2C.encode(np.array([complex(np.nan, 0)]))
    with pytest.raises(FormatError, match="tensors hold real numbers"):
        TensorFormat.parse("i2c/row")


def test_decoding_gives_complex_numbers() -> None:
    fmt, codes = get("i2c"), np.array([0, 1, 2, 3], np.uint8)
    for wanted, types in (
        (np.complex64, (None, np.float32, "float32", np.complex64)),
        (np.complex128, (np.float64, "complex128")),
    ):
        for dtype in types:
            found = fmt.decode(codes, dtype)
            assert found.dtype == wanted and found.tolist() == [1, 1j, -1, -1j]
    assert fmt.decode(torch.from_numpy(codes), torch.float64).dtype == torch.complex128
    for refused, given in ((np.float16, codes), (torch.float16, torch.from_numpy(codes))):
        with pytest.raises(FormatError, match="i2c decodes to complex numbers; got"):
            fmt.decode(given, refused)
