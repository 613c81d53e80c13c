"""Planes against plain sums over bits in numpy: every rule, every width, groups that do not fill words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit import formats
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.tensors.bitplanes import SIGN_RULES, BitPlanes, as_bipolar, bit_planes, from_qtensor, planes_of

RULES = tuple(SIGN_RULES)


def codes(rows: int, cols: int, bits: int) -> torch.Tensor:
    return torch.randint(0, 2**bits, (rows, cols), generator=torch.Generator().manual_seed(bits)).to(torch.uint8)


def value_of(code: np.ndarray, bits: int, rule: str) -> np.ndarray:
    """What a code stands for, from the formats' definitions rather than from bits."""
    code = code.astype(np.int64)
    if rule == "bipolar":
        return 2 * code - (2**bits - 1)
    return np.where(code >= 2 ** (bits - 1), code - 2**bits, code) if rule == "twos" else code


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(("cols", "group"), [(130, 0), (64, 0), (1, 0), (130, 40), (128, 128), (100, 64), (3, 128)])
def test_codes_and_values_come_back(rule: str, bits: int, cols: int, group: int) -> None:
    given = codes(5, cols, bits)
    planes = bit_planes(given, bits, rule, group)  # type: ignore[arg-type]
    assert planes.bits == bits and planes.rows == 5 and planes.groups == (-(-cols // group) if group else 1)
    assert torch.equal(planes.codes(), given)
    assert np.array_equal(planes.values(), value_of(given.numpy(), bits, rule))


def test_words_are_little_endian_and_padding_is_zero() -> None:
    given = torch.tensor([[1] * 70 + [3]], dtype=torch.uint8)
    planes = bit_planes(given, 2, "unsigned")
    low, high = planes.words.numpy().view(np.uint64)[:, 0, 0].tolist()
    assert low == [2**64 - 1, 2**7 - 1] and high == [0, 2**6]
    grouped = bit_planes(given, 2, "unsigned", group=8).words.numpy().view(np.uint64)
    assert grouped.shape == (2, 1, 9, 1) and grouped[0, 0, :, 0].tolist() == [255] * 8 + [127]


@pytest.mark.parametrize("rule", RULES)
def test_the_top_planes_are_a_view_of_the_coarser_number(rule: str) -> None:
    given = torch.arange(256, dtype=torch.uint8).reshape(1, 256)
    planes = bit_planes(given, 8, rule)  # type: ignore[arg-type]
    values = planes.values().numpy()
    for bits in range(1, 9):
        top = planes.top(bits)
        assert top.words.data_ptr() == planes.words[8 - bits :].data_ptr()
        coarse = top.values().numpy() * 2 ** (8 - bits)
        if rule == "bipolar":
            grid = np.arange(1 - 2**bits, 2**bits, 2) * 2 ** (8 - bits)
            nearest = np.abs(values[..., None] - grid).min(-1)
            assert np.array_equal(np.abs(values - coarse), nearest)
        else:
            assert np.array_equal(coarse, np.floor(values / 2 ** (8 - bits)) * 2 ** (8 - bits))
            assert ((values - coarse) >= 0).all() and ((values - coarse) < 2 ** (8 - bits)).all()


@pytest.mark.parametrize("rule", RULES)
def test_planes_with_scales_of_their_own(rule: str) -> None:
    """Any-order binary codes: every plane, row and group has a factor; the powers of two stay."""
    given = codes(3, 20, 3)
    scale = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(0))
    planes = bit_planes(given, 3, rule, group=8, scale=scale)  # type: ignore[arg-type]
    expected = np.zeros((3, 20))
    for i, r, c in np.ndindex(3, 3, 20):
        bit = int(given[r, c]) >> i & 1
        digit = 2 * bit - 1 if rule == "bipolar" else bit
        weight = -(2**i) if rule == "twos" and i == 2 else 2**i
        expected[r, c] += weight * float(scale[i, r, c // 8]) * digit
    assert np.allclose(planes.values().numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "name", ["int4", "int4n", "int1", "uint3", "bipolar1", "bipolar2", "bipolar5", "ternary", "int8"]
)
def test_elements_of_formats(name: str) -> None:
    fmt = formats.get(name)
    values = torch.tensor(fmt.values)
    given = fmt.encode(values).to(torch.uint8).reshape(1, -1)
    rule, offset = planes_of(fmt)
    planes = bit_planes(given, fmt.bits, rule, offset=offset)
    assert torch.equal(planes.values().double()[0], values)


@pytest.mark.parametrize("spec", ["int4/g64", "uint3/g16+z", "bipolar2/g128", "ternary/row", "int8/g32:e8m0"])
def test_a_quantized_tensor_is_its_planes_scaled(spec: str) -> None:
    q = quantize(torch.randn(6, 200), TensorFormat.parse(spec))
    planes = from_qtensor(q)
    wide = q.format.block[1] or 200
    spread = lambda t: t.repeat_interleave(wide, 1)[:, :200]  # noqa: E731
    zeros = 0 if q.zeros() is None else spread(q.zeros())
    assert torch.equal(((planes.values() - zeros) * spread(q.scales())).float(), q.dequantize())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("rule", RULES)
def test_bipolar_reading_is_exact(bits: int, rule: str) -> None:
    given = codes(4, 90, bits)
    planes = bit_planes(given, bits, rule, group=50)  # type: ignore[arg-type]
    bipolar, scale, shift = as_bipolar(planes)
    assert bipolar.rule == "bipolar"
    assert torch.equal(bipolar.values().double() * scale + shift, planes.values().double())
    flipped = planes.words if rule == "twos" else bipolar.words
    assert torch.equal(bipolar.words[:-1], flipped[:-1])
    # the padding of a flipped plane stays 0
    assert torch.equal(bit_planes(bipolar.codes(), bits, "bipolar", 50).words, bipolar.words)


def test_what_has_no_planes_is_refused() -> None:
    with pytest.raises(FormatError, match="values of e2m1 are no weighted sums"):
        planes_of(formats.get("e2m1"))
    with pytest.raises(FormatError, match="values of nf4"):
        planes_of(formats.get("nf4"))
    with pytest.raises(FormatError, match=r"codes of 2 bits lie in \[0, 4\); got 0 to 4"):
        bit_planes(torch.tensor([[0, 4]]), 2, "unsigned")
    with pytest.raises(FormatError, match="codes of 1 to 16 bits; got 17"):
        bit_planes(torch.tensor([[0, 4]]), 17, "unsigned")
    with pytest.raises(FormatError, match="unsigned, twos, bipolar; got 'sign'"):
        bit_planes(torch.tensor([[0]]), 1, "sign")  # type: ignore[arg-type]
    planes = bit_planes(torch.zeros(2, 70, dtype=torch.uint8), 3, "twos", offset=1)
    with pytest.raises(FormatError, match="no 4 top planes"):
        planes.top(4)
    with pytest.raises(FormatError, match="the offset 1 is no multiple of 2"):
        planes.top(2)
    with pytest.raises(FormatError, match="do not fill"):
        BitPlanes(planes.words, 200, "twos")
    with pytest.raises(FormatError, match=r"\[planes, rows, groups\] = \[3, 2, 1\]; got \[3\]"):
        BitPlanes(planes.words, 70, "twos", scale=torch.ones(3))
    scaled = BitPlanes(planes.words, 70, "twos", scale=torch.ones(3, 2, 1))
    for refuse in (lambda: scaled.top(2), lambda: as_bipolar(scaled)):
        with pytest.raises(FormatError, match="scales of their own"):
            refuse()
