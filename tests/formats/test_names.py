"""What must hold for names.py: every name round-trips, near names are suggested, and nf4 is what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from anybit.errors import FormatError
from anybit.formats import get
from anybit.formats.names import TABLE


@pytest.mark.parametrize("name", TABLE)
def test_names_are_the_formats_own(name: str) -> None:
    assert TABLE[name].name == name
    assert get(name) is TABLE[name]


@pytest.mark.parametrize("name", ["e4m3", "e3m0", "e1m2", "e5m6", "e2m1ieee", "e4m3none", "int16n",
                                  "uint16", "e4m3uz", "ue4m3fn", "e5m2b3", "e3m2bm1fnuz", "posit7_1",
                                  "fixed3_9", "ufixed0_8", "levels(-1,0,0.5)"])  # fmt: skip
def test_patterns_give_formats_that_know_their_name(name: str) -> None:
    assert get(name).name == name


def test_spelled_out_names_are_equal_to_the_short_ones() -> None:
    assert get("e5m10") == get("fp16")
    assert get("e8m7") == get("bf16")
    assert get("e5m2ieee") == get("e5m2")
    assert get("e2m1none") == get("e2m1")
    assert get("levels(1,-1,0)").name == "levels(-1,0,1)"


def test_nf4_is_built_from_normal_quantiles() -> None:
    # QLoRA, section 3: eight quantiles for the positive side, seven for the negative, zero between, scaled to [-1, 1]. The
    # authors' offset is the mean of 1 - 1/(2*15) and 1 - 1/(2*16).
    offset = (1 - 1 / 30 + 1 - 1 / 32) / 2
    positive = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    wanted = np.sort(np.concatenate([positive, [0.0], negative])) / positive.max()
    # The published digits are those of float32 arithmetic: a few units in its last place.
    assert np.max(np.abs(get("nf4").values - wanted)) < 1e-6


@pytest.mark.parametrize(("name", "message"), [
    ("int0", "1 to 8 or 16 bits; got 0"), ("int17", "got 17"), ("uint9", "got 9"), ("bipolar9", "1 to 8 bits; got 9"),
    ("in4", "did you mean int4"), ("NF4", "did you mean nf4"), ("e4m3fnz", "did you mean e4m3fn"), ("teranry", "did you mean ternary"),
    ("posit1_0", "posits have 2 to 16 bits"), ("fixed30_2", "1 to 24 in all"), ("levels(1)", "2 to 256"), ("levels(1,1)", "levels"),
    ("levels(1,x)", "different numbers parted by commas; got levels\\(1,x\\)"), ("levels(nan,1)", "got levels\\(nan,1\\)"),
    ("levels(inf,1)", "got levels\\(inf,1\\)"), ("levels()", "got levels\\(\\)"), (5, "a string; got 5"), (None, "a string; got None"),
    ("levels(1,2,-)", "different numbers parted by commas"),
    ("", "unknown number format ''; known: int1"), ("qqq", "known: int1"), ("e9m9", "1 to 8 exponent bits"),
])  # fmt: skip
def test_unknown_names_are_refused_with_advice(name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        get(name)


def test_two_levels_are_told_from_misspelt_names() -> None:
    with pytest.raises(FormatError, match="means two tensor formats, which ResidualFormat"):
        get("nvfp4~nvfp4")


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4/g128"])
def test_names_of_tensor_formats_are_told_from_misspelt_ones(name: str) -> None:
    with pytest.raises(FormatError, match=f"{name!r} means numbers with scales, which TensorFormat.parse knows"):
        get(name)
