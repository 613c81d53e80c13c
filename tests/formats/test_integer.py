"""What must hold for integer.py; the oracle is Python's own integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import Int, get


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 8, 16])
def test_codes_are_twos_complement(width: int) -> None:
    fmt = Int(width)
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    values = np.arange(low, high + 1)
    wanted = [int.from_bytes(int(v).to_bytes(4, "little", signed=True), "little") & (2**width - 1) for v in values]
    assert fmt.encode(values).tolist() == wanted
    assert fmt.encode(torch.from_numpy(values)).tolist() == wanted
    assert fmt.decode(fmt.encode(values)).tolist() == values.tolist()
    assert sorted(fmt.values) == values.tolist()


@pytest.mark.parametrize("width", [1, 4, 8, 16])
def test_unsigned_codes_are_the_values(width: int) -> None:
    fmt = Int(width, signed=False)
    assert np.array_equal(fmt.values, np.arange(2**width))
    assert fmt.encode(np.array([-5.0, 2.0**width + 3])).tolist() == [0, 2**width - 1]


def test_narrow_is_symmetric() -> None:
    fmt = get("int4n")
    assert (fmt.min, fmt.max) == (-7, 7)
    assert sorted(fmt.values) == list(range(-7, 8))
    assert fmt.encode(np.array([-8.0])).tolist() == [9]
    assert fmt == Int(4, narrow=True)


def test_int1_has_no_positive_value() -> None:
    fmt = get("int1")
    assert sorted(fmt.values) == [-1, 0]
    assert fmt.max == 0 and fmt.min_positive == 0


@pytest.mark.parametrize("width", [0, -1, 9, 15, 17, 32])
def test_impossible_widths_are_refused(width: int) -> None:
    with pytest.raises(FormatError, match=f"1 to 8 or 16 bits; got {width}"):
        Int(width)


@pytest.mark.parametrize("make", [lambda: Int(4, signed=False, narrow=True), lambda: Int(1, narrow=True)])
def test_only_signed_integers_can_be_narrow(make) -> None:
    with pytest.raises(FormatError, match="can be narrow"):
        make()
