"""Sizes of channels against loops, and what an order does to blocks of keys."""

import math

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.transforms.key_order import Options, sorted_channels, unit_sizes

PAIRS = torch.stack([torch.arange(3), torch.arange(3) + 3], 1)


def test_sizes_are_those_of_rows_with_gain_and_bias() -> None:
    w, b, g = torch.randn(6, 5), torch.randn(6), torch.rand(5)
    got = unit_sizes(w, b, g, PAIRS)
    for i in range(3):
        wanted = math.sqrt(sum(float((w[j] * g).square().sum() + b[j] ** 2) for j in (i, i + 3)))
        assert float(got[i]) == pytest.approx(wanted, rel=1e-6)
    alone = unit_sizes(w, None, None, torch.arange(6)[:, None])
    torch.testing.assert_close(alone, w.double().norm(dim=1))


def test_channels_are_in_order_with_pairs_together_and_those_without_angles_behind() -> None:
    got = sorted_channels(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([5.0, 7.0]))
    assert got.tolist() == [1, 4, 2, 5, 0, 3, 7, 6]
    assert sorted_channels(torch.zeros(0), torch.tensor([1.0, 2.0])).tolist() == [1, 0]


@pytest.mark.parametrize("mode", ["weights", "channels"])
def test_unknown_modes_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="pairs or after"):
        Options(mode=mode)
    with pytest.raises(ValueError, match="keys or values"):
        Options(keys=False)


@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 8), (8, 16)])
def test_blocks_with_a_power_of_two_are_block_floating_point(bits: int, block: int) -> None:
    """E = floor(log2 max|x|), q = clip(rne(x / 2^(E - bits + 2))): a scalar loop in Python's own floats."""
    g = torch.Generator().manual_seed(bits)
    x = torch.randn(40, 64, generator=g) * torch.exp2(torch.randint(-20, 20, (40, 1), generator=g).float())
    x[0] = 0.0
    x[1, :block] = torch.exp2(torch.arange(block).float() - 4)  # powers of two
    x[2, 0], x[2, 1:block] = 1.99, 0.01  # rounds to 2^(bits-1), which is one too many
    x[3, 0], x[3, 1:block] = -2.0, 0.3  # exactly -2^(bits-1) is a power of two higher
    x[4] = 1e-41  # subnormal
    got = quantize(x, TensorFormat.parse(f"int{bits}/g{block}:e8m0")).dequantize()
    for row, values in enumerate(x.tolist()):
        for start in range(0, 64, block):
            part = values[start : start + block]
            largest = max(abs(v) for v in part)
            exponent = max(math.frexp(largest)[1] - 1 - (bits - 2), -127) if largest else 0
            unit = 2.0**exponent
            wanted = [max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, round(v / unit))) * unit for v in part]
            assert got[row, start : start + block].tolist() == wanted, (row, start)


def test_scores_from_integers_are_those_of_dequantized_blocks() -> None:
    keys, queries = TensorFormat.parse("int4/g16:e8m0"), TensorFormat.parse("int8/g16:e8m0")
    k, q = quantize(torch.randn(9, 64), keys), quantize(torch.randn(5, 64), queries)

    def signed(t, bits):
        codes = t.unpacked().long().reshape(-1, 4, 16)
        return torch.where(codes >= 1 << (bits - 1), codes - (1 << bits), codes)

    blocks = torch.einsum("mbi,nbi->mnb", signed(q, 8), signed(k, 4))
    scores = (blocks * (q.scales()[:, None] * k.scales()[None]).double()).sum(-1)
    wanted = q.dequantize().double() @ k.dequantize().double().T
    assert torch.equal(scores, wanted)
