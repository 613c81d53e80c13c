"""MatGPTQ against enumeration of all codes, a slow OBQ, and plain GPTQ where there is one target only."""

import numpy as np
import pytest
import torch
from tests.quantize.test_gptq import problem

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import gptq, matgptq, obs, rtn
from anybit.quantize.matgptq import Envelope, Options, slice_codes

ALL = torch.arange(-128, 128)


@pytest.mark.parametrize("bits", range(1, 9))
def test_slices_are_those_of_offset_codes(bits: int) -> None:
    """The paper's S(q, r) on offset binary codes, typed out in Python integers."""
    for code, got in zip(ALL.tolist(), slice_codes(ALL, bits).tolist(), strict=True):
        q = code + 128
        wanted = q if bits == 8 else min((q >> (8 - bits)) + ((q >> (7 - bits)) & 1), 2**bits - 1)
        assert got == wanted - 2 ** (bits - 1)
    assert bool((slice_codes(ALL, bits).diff() >= 0).all())


@pytest.mark.parametrize("targets", ["3,4,8", "2,4,8", "2,3,4,6,8", "8", "2", "1,8"])
@pytest.mark.parametrize("weights", [None, "geometric", "one zero"])
def test_the_envelope_finds_the_best_of_all_codes(targets: str, weights: str | None) -> None:
    bits = [int(b) for b in targets.split(",")]
    lam = [1.0] * len(bits) if weights is None else [0.3**i for i in range(len(bits))]
    if weights == "one zero" and len(bits) > 1:
        lam[0] = 0.0
    envelope = Envelope(list(zip(bits, lam, strict=True)), True, torch.float64)
    u = torch.cat([torch.linspace(-160, 160, 20011, dtype=torch.float64), torch.randn(999, dtype=torch.float64) * 40])
    cost = torch.zeros(256, len(u), dtype=torch.float64)
    for b, weight in zip(bits, lam, strict=True):
        value = slice_codes(ALL, b).double() * 2.0 ** (8 - b)
        cost += weight * (u[None] - value[:, None]).square()
    got = cost[envelope.codes(u) + 128, torch.arange(len(u))]
    assert bool((got <= cost.amin(0) * (1 + 1e-9) + 1e-9).all())


def test_one_target_of_eight_bits_is_gptq() -> None:
    weight, stats = problem()
    fmt = TensorFormat.parse("int8/g16")
    ours = matgptq.quantize(weight, fmt, stats, Options(bits="8", weights="1", search=False))
    plain = gptq.quantize(weight, fmt, stats, gptq.Options(scale_rule="absmax"))
    assert torch.equal(ours.qtensor.codes, plain.qtensor.codes) and torch.equal(ours.qtensor.scale, plain.qtensor.scale)
    assert ours.report.relative_error == pytest.approx(plain.report.relative_error, rel=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_same_codes_as_enumeration_with_the_explicit_inverse(weighted: bool) -> None:
    weight, stats = problem(rows=10, columns=40, seed=3)
    fmt = TensorFormat.parse("int8/g8")
    options = Options(bits="2,4,8", weights="0.2,0.5,1", weighted=weighted, search=False)
    done = matgptq.quantize(weight, fmt, stats, options, factor=obs.factorize(stats.hessian))
    hessian = stats.hessian.double().numpy()
    order = np.argsort(-hessian.diagonal(), kind="stable")
    damped = hessian + 0.01 * hessian.diagonal().mean() * np.eye(40)
    scales = done.qtensor.scales().double().numpy()
    targets = options.targets()
    values = np.stack([slice_codes(ALL, b).double().numpy() * 2.0 ** (8 - b) for b, _ in targets])
    lam = np.array([w for _, w in targets])
    mean = (lam @ values) / lam.sum() if weighted else values.mean(0)
    w, inverse, codes = weight.numpy().copy(), np.linalg.inv(damped), np.empty((10, 40), int)
    for i in order:
        s = scales[:, i // 8]
        cost = (lam[:, None, None] * (w[:, i] - s * values[:, :, None]) ** 2).sum(0)
        codes[:, i] = cost.argmin(0) - 128
        w -= np.outer((w[:, i] - s * mean[codes[:, i] + 128]) / inverse[i, i], inverse[i])
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
        inverse[i, :] = inverse[:, i] = 0.0
        inverse[i, i] = 1.0
    got = done.qtensor.unpacked().to(torch.int64)
    got = torch.where(got >= 128, got - 256, got).numpy()
    # Several codes may have the same slices at every target with a weight; what counts is what they stand for.
    assert np.array_equal(values[:, got + 128], values[:, codes + 128])


def test_low_slices_gain_over_slices_of_gptq() -> None:
    weight, stats = problem(rows=64, columns=128, seed=1)
    fmt = TensorFormat.parse("int8/g64")
    plain = gptq.quantize(weight, fmt, stats, gptq.Options(scale_rule="absmax")).qtensor
    ours = matgptq.quantize(weight, fmt, stats)
    for bits in (3, 4):
        error = rtn.relative_error(weight, ours.qtensor.at_bits(bits), stats)
        assert error < rtn.relative_error(weight, plain.at_bits(bits), stats)
        assert ours.report.details[f"error_{bits}_bits"] == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("spec", ["int8/g16", "int8/row", "int8/g16:e4m3fn+t", "int8/b4x16"])
def test_searched_scales_are_the_best_of_the_shares(spec: str) -> None:
    weight, stats = problem(rows=8, columns=40, seed=4)
    fmt = TensorFormat.parse(spec)
    options = Options(bits="2,4,8", weights="1,0.5,0.2")
    got = matgptq.quantize(weight, fmt, stats, options).qtensor.scales().double()
    first, _, t = tensors.block_scales(weight.float(), fmt, "absmax")
    t = torch.ones(()) if t is None else t
    tall, wide = fmt.block[0], fmt.block[1] or 40
    importance = stats.hessian.diagonal().double()
    for i in range(got.shape[0]):
        for j in range(got.shape[1]):
            w = weight[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]
            errors = {}
            for k in range(14):
                s = float(fmt.scale.round(first[i, j] * (1 - 0.05 * k)) * t)
                cost = torch.zeros(256, *w.shape, dtype=torch.float64)
                for b, weight_b in options.targets():
                    value = slice_codes(ALL, b).double() * 2.0 ** (8 - b) * s
                    cost += weight_b * (w[None] - value[:, None, None]).square()
                errors[s] = float((cost.amin(0) * importance[j * wide : (j + 1) * wide]).sum())
            assert errors[min(errors, key=lambda s: abs(s - float(got[i, j])))] <= min(errors.values()) * (1 + 1e-6)


@pytest.mark.parametrize("spec", ["int8/g16", "int8/row", "int8/g16:e4m3fn+t", "int8/tensor", "int8/b4x16"])
def test_a_slice_decodes_to_the_sliced_codes(spec: str) -> None:
    q = tensors.quantize(torch.randn(8, 48), TensorFormat.parse(spec))
    whole = q.dequantize()
    for bits in range(1, 9):
        part = q.at_bits(bits)
        assert part.format.element.name == f"int{bits}" and part.nbytes <= q.nbytes
        codes = q.unpacked().to(torch.int64)
        signed = torch.where(codes >= 128, codes - 256, codes)
        step = torch.where(signed == 0, torch.ones(()), whole / signed)
        wanted = slice_codes(signed, bits) * 2.0 ** (8 - bits) * step
        nonzero = signed != 0
        torch.testing.assert_close(part.dequantize()[nonzero], wanted[nonzero].float(), rtol=1e-5, atol=1e-7)
    assert torch.equal(q.at_bits(8).dequantize(), whole)


def test_refusals() -> None:
    weight, stats = problem()
    with pytest.raises(RecipeError, match="int8 codes with scales and no zero points, such as int8/g128; got int4/g16"):
        matgptq.quantize(weight, TensorFormat.parse("int4/g16"), stats)
    with pytest.raises(RecipeError, match="needs calibration"):
        matgptq.quantize(weight, TensorFormat.parse("int8/g16"), None)
    with pytest.raises(RecipeError, match="1 to 8 bits; got 9"):
        slice_codes(ALL, 9)
    for bits, weights in (("3,4", "1"), ("9", "1"), ("3,3", "1,1"), ("3", "0"), ("3", "-1"), ("a", "1"), ("3", "nan")):
        with pytest.raises(ValueError):
            Options(bits=bits, weights=weights)
