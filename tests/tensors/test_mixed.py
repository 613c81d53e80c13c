"""Parts against quantizing the rows or columns by themselves."""

from __future__ import annotations

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.tensors.mixed import MixedTensor, quantize_mixed

FORMATS = [TensorFormat.parse(spec) for spec in ("int8/g32", "int4/g32", "int2/g16")]


@pytest.mark.parametrize("axis", [0, 1])
def test_every_member_is_as_if_quantized_in_its_part(axis: int) -> None:
    generator = torch.Generator().manual_seed(axis)
    x = torch.randn(50, 96, generator=generator)
    choice = torch.randint(0, 3, (x.shape[axis],), generator=generator)
    mixed = quantize_mixed(x, FORMATS, choice, axis)
    whole = mixed.dequantize()
    assert mixed.shape == (50, 96) and whole.shape == x.shape
    for i, fmt in enumerate(FORMATS):
        members = torch.nonzero(choice == i).flatten()
        assert torch.equal(mixed.members[i], members)
        assert torch.equal(whole.index_select(axis, members), quantize(x.index_select(axis, members), fmt).dequantize())
    assert mixed.nbytes == sum(p.nbytes for p in mixed.parts) + 4 * x.shape[axis]
    assert mixed.bits_per_weight == 8 * mixed.nbytes / x.numel() and "int4/g32" in repr(mixed)


def test_formats_without_members_have_no_part() -> None:
    mixed = quantize_mixed(torch.randn(4, 32), FORMATS, torch.ones(4, dtype=torch.int64), 0)
    assert len(mixed.parts) == 1 and mixed.order.tolist() == [0, 1, 2, 3]


def test_parts_that_do_not_fit_are_refused() -> None:
    x = torch.randn(4, 32)
    a, b = quantize(x, FORMATS[0]), quantize(x[:, :16], FORMATS[1])
    with pytest.raises(FormatError, match=r"the parts have \[16, 32\] columns"):
        MixedTensor((a, b), 0, torch.arange(8))
    with pytest.raises(FormatError, match="names each of 48 columns once"):
        MixedTensor((a, b), 1, torch.zeros(48, dtype=torch.int64))
    with pytest.raises(FormatError, match=r"axis 0 .rows. or 1"):
        MixedTensor((a,), 2, torch.arange(4))
    with pytest.raises(FormatError, match="at least one part"):
        MixedTensor((), 0, torch.arange(0))
    with pytest.raises(FormatError, match="names formats 0 to 3; there are 3"):
        quantize_mixed(x, FORMATS, torch.tensor([0, 1, 2, 3]), 0)
    with pytest.raises(FormatError, match=r"for each of the \[4, 32\] along axis 1; got \[4\]"):
        quantize_mixed(x, FORMATS, torch.zeros(4, dtype=torch.int64), 1)
    with pytest.raises(FormatError, match="cannot share scales"):
        quantize_mixed(x, [TensorFormat.parse("int4/tensor")], torch.zeros(4, dtype=torch.int64), 0)
