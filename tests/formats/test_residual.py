"""Spec strings of two levels, and what they cost."""

from __future__ import annotations

import pytest

from anybit.errors import FormatError
from anybit.formats import ResidualFormat, TensorFormat


@pytest.mark.parametrize(
    "spec", ["int4/g64~int4/g64", "bf16~bf16", "e2m1/g16:e4m3fn+t~e2m1/g32:e8m0", "int4/g32+z~nf4/g64"]
)
def test_specs_are_read_back(spec):
    fmt = ResidualFormat.parse(spec)
    assert str(fmt) == spec and ResidualFormat.parse(str(fmt)) == fmt
    first, second = map(TensorFormat.parse, spec.split("~"))
    assert (fmt.main, fmt.rest) == (first, second)
    assert fmt.bits == first.bits + second.bits
    assert fmt.nbytes((3, 128)) == first.nbytes((3, 128)) + second.nbytes((3, 128))


def test_aliases_stand_for_their_specs():
    assert str(ResidualFormat.parse("nvfp4~mxfp4")) == "e2m1/g16:e4m3fn+t~e2m1/g32:e8m0"


@pytest.mark.parametrize("spec", ["int4/g64", "~int4", "int4~", "a~b~c", ""])
def test_not_two_formats(spec):
    with pytest.raises(FormatError, match="two formats with ~"):
        ResidualFormat.parse(spec)


def test_an_unknown_part_is_named():
    with pytest.raises(FormatError, match="mxfp5"):
        ResidualFormat.parse("int4/g64~mxfp5")
