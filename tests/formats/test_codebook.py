"""What must hold for codebook.py: nearest by brute force, ties to the even code, unused codes refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import Codebook, TensorFormat, bipolar, codebook, get


def test_ternary_ties() -> None:
    fmt = get("ternary")
    # Codes 0, 1, 2 are -1, 0, 1; a tie goes to the even code, away from zero.
    x = np.array([-0.5, 0.5, -0.49, 0.49, 9, -9], np.float32)
    assert fmt.round(x).tolist() == [-1, 1, 0, 0, 1, -1]
    assert fmt.encode(x).tolist() == [0, 2, 1, 1, 2, 0]
    assert fmt.round(x, "nearest_away").tolist() == [-1, 1, 0, 0, 1, -1]
    assert fmt.bits == 2


def test_codes_beyond_the_list_are_refused() -> None:
    with pytest.raises(FormatError, match="ternary has codes 0 to 2; got 3"):
        get("ternary").decode(np.array([0, 3]))
    with pytest.raises(FormatError, match="ternary has codes 0 to 2; got 3"):
        get("ternary").decode(torch.tensor([0, 3], dtype=torch.uint8))


@pytest.mark.parametrize("bits", range(1, 9))
def test_bipolar_values_are_sums_of_signed_planes(bits: int) -> None:
    planes = np.array([[2 * ((code >> i) & 1) - 1 for i in range(bits)] for code in range(2**bits)])
    assert np.array_equal(bipolar(bits).values, planes @ 2 ** np.arange(bits))


def test_float32_midpoints_that_float32_cannot_hold() -> None:
    third = 1 / 3
    fmt = Codebook("c", (0.0, third, 1.0))
    middle = np.float64(third) / 2
    near = np.array(
        [np.float32(middle), np.nextafter(np.float32(middle), -1), np.nextafter(np.float32(middle), 1)], np.float32
    )
    wanted = [third if float(v) > middle else 0.0 for v in near]  # none of the three is the midpoint itself
    assert middle not in near.astype(np.float64)
    assert fmt.round(near.astype(np.float64)).tolist() == wanted
    assert np.array_equal(fmt.encode(near), fmt.encode(near.astype(np.float64)))


@pytest.mark.parametrize("levels", [(1.0,), (1.0, 1.0), (2.0, 1.0), (0.0, float("nan")), tuple(map(float, range(257)))])
def test_impossible_lists_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(FormatError, match="'c'"):
        Codebook("c", levels)


def test_a_codebook_of_ones_own_has_a_name_that_reads_back() -> None:
    fmt = codebook([0.1, -1, 1e30, 0, 2 / 3])
    assert fmt.levels == (-1.0, 0.0, 0.1, 2 / 3, 1e30)
    assert get(fmt.name) == fmt and "+" not in fmt.name
    spec = TensorFormat(fmt, (1, 32), get("fp16"))
    assert TensorFormat.parse(str(spec)) == spec
    with pytest.raises(FormatError, match="ascending"):
        codebook([1.0, 1.0])
