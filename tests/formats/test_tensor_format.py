"""What must hold for tensor_format.py: parse(str(x)) == x for every value, one meaning per alias, one clear sentence per mistake."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anybit.errors import FormatError
from anybit.formats import ALIASES, Codebook, Exponent, Float, Int, TensorFormat, get
from anybit.formats.names import TABLE

parse = TensorFormat.parse

elements = st.one_of(
    st.sampled_from([fmt for fmt in TABLE.values() if not fmt.is_complex]),
    st.builds(Float, st.integers(2, 5), st.integers(2, 2), st.sampled_from(["ieee", "fn", "none"])),
)
sizes = st.one_of(st.just(0), st.integers(1, 4096))
blocks = st.one_of(st.sampled_from([(0, 0), (1, 0), (1, 32), (1, 128)]), st.tuples(sizes, sizes))
scales = st.sampled_from([get(n) for n in ("fp32", "fp16", "bf16", "e8m0", "e4m3fn", "e5m2", "e4m3", "e3m4")])


@st.composite
def tensor_formats(draw: st.DrawFn) -> TensorFormat:
    element = draw(elements)
    if draw(st.integers(0, 4)) == 0:
        return TensorFormat(element)
    zero = element if isinstance(element, Int) and element.bits <= 8 and draw(st.booleans()) else None
    return TensorFormat(element, draw(blocks), draw(scales), zero, draw(st.booleans()))


@settings(max_examples=1000, deadline=None)
@given(tensor_formats())
def test_a_spec_string_parses_to_its_value(fmt: TensorFormat) -> None:
    assert parse(str(fmt)) == fmt


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="intefmgbxrow01248/:+zt*su", max_size=16))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        fmt = parse(text)
    except FormatError as error:
        assert "\n" not in str(error)
    else:
        assert parse(str(fmt)) == fmt


INT4 = Int(4)
CASES = {
    "int4/g128": TensorFormat(INT4, (1, 128), get("fp16")),
    "int4/g128+z": TensorFormat(INT4, (1, 128), get("fp16"), zero=INT4),
    "int8/row": TensorFormat(Int(8), (1, 0), get("fp32")),
    "e4m3fn/tensor": TensorFormat(Float(4, 3, "fn"), (0, 0), get("fp32")),
    "ternary/tensor": TensorFormat(get("ternary"), (0, 0), get("fp32")),
    "nf4/g64": TensorFormat(get("nf4"), (1, 64), get("fp16")),
    "int4/b16x32:bf16": TensorFormat(INT4, (16, 32), get("bf16")),
    "int4/b*x1": TensorFormat(INT4, (0, 1), get("fp16")),
    "int4/b8x*": TensorFormat(INT4, (8, 0), get("fp16")),
    "e2m1/g32:e8m0": TensorFormat(Float(2, 1, "none"), (1, 32), Exponent(8)),
    "e2m1/g16:e4m3fn+t": TensorFormat(Float(2, 1, "none"), (1, 16), Float(4, 3, "fn"), tensor_scale=True),
    "bf16": TensorFormat(get("bf16")),
    "uint4/g32:fp32+z+t": TensorFormat(Int(4, signed=False), (1, 32), get("fp32"), Int(4, signed=False), True),
}


@pytest.mark.parametrize("spec", CASES)
def test_specs_mean_what_the_design_says(spec: str) -> None:
    assert parse(spec) == CASES[spec]
    assert str(CASES[spec]) == spec


def test_spellings_of_one_value() -> None:
    assert parse("int4/g128:fp16") == parse("int4/g128") and str(parse("int4/g128:fp16")) == "int4/g128"
    assert parse("int8/row:fp32") == parse("int8/row")
    assert parse("int8/b1x128") == parse("int8/g128") and parse("int8/b1x*") == parse("int8/row:fp32")


@pytest.mark.parametrize(("alias", "spec"), [
    ("mxfp4", "e2m1/g32:e8m0"), ("mxfp6", "e3m2/g32:e8m0"), ("mxfp8", "e4m3fn/g32:e8m0"),
    ("nvfp4", "e2m1/g16:e4m3fn+t"), ("dfp16", "int16/tensor:e8m0"),
])  # fmt: skip
def test_aliases(alias: str, spec: str) -> None:
    assert ALIASES[alias] == spec
    assert parse(alias) == parse(spec)
    assert str(parse(alias)) == spec


@pytest.mark.parametrize(("spec", "message"), [
    ("in4/g128", "'in4/g128': unknown number format 'in4'; did you mean int4"),
    ("int0/g128", "1 to 8 or 16 bits; got 0"), ("int17/row", "1 to 8 or 16 bits; got 17"),
    ("int4/g0", "block sizes are 1 or more; got 'g0'"), ("int4/b0x32", "block sizes are 1 or more"),
    ("int4/g", "unknown block 'g'"), ("int4/", "unknown block ''"), ("int4/g-1", "unknown block"), ("int4/rows", "unknown block 'rows'"),
    ("int4/g32:int8", "scales are fp32, fp16, bf16, e8m0"), ("int4/g32:", "unknown number format ''"),
    ("nf4/g64+z", "a zero point needs an integer element"), ("int16/row+z", "at most 8 bits"),
    ("int4/g32+t+z", r"\+z, \+t or \+z\+t; got '\+t\+z'"), ("int4/g32+x", r"got '\+x'"), ("int4/g32+", "after the block"),
    ("int4+z", "needs a block"), ("int4:fp16", "needs a block"), ("mxpf4", "did you mean mxfp4"), ("", "unknown number format ''"),
    ("e5m6/g32", "1 to 8, 16 or 32 bits; e5m6 has 12"), ("int4/g99999999999", "block sizes"),
])  # fmt: skip
def test_mistakes_are_refused_with_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        parse(spec)
    assert "\n" not in str(caught.value)


def test_values_without_a_spec_string_cannot_be_built() -> None:
    with pytest.raises(FormatError, match="so it has no spec string"):
        TensorFormat(Codebook("mine", (0.0, 1.0)), (0, 0), get("fp32"))
    with pytest.raises(FormatError, match="without a scale has no block"):
        TensorFormat(INT4, (1, 32))
    with pytest.raises(FormatError, match="each 0"):
        TensorFormat(INT4, (1, -2), get("fp16"))
    with pytest.raises(FormatError, match="has its format; got int8 for int4"):
        TensorFormat(INT4, (1, 32), get("fp16"), zero=Int(8))


@pytest.mark.parametrize(("spec", "shape", "grid", "nbytes"), [
    ("int4/g128", (3, 300), (3, 3), 3 * 150 + 9 * 2), ("int3/g128+z", (2, 5, 3), (2, 1), 2 * 6 + 2 * 3),
    ("int8/tensor", (4, 7), (1, 1), 28 + 4), ("int2/b16x32", (17, 33), (2, 2), 17 * 9 + 8), ("bf16", (5, 2), (1, 1), 20),
    ("nvfp4", (2, 40), (2, 3), 2 * 20 + 6 + 4), ("int1/row", (3,), (3, 1), 3 + 12),
])  # fmt: skip
def test_grid_and_bytes(spec: str, shape: tuple[int, ...], grid: tuple[int, int], nbytes: int) -> None:
    assert parse(spec).grid(shape) == grid
    assert parse(spec).nbytes(shape) == nbytes
