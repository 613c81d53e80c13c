"""Complex signs: the kernels against the reference bit by bit, and both against complex products in float64."""

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.tensors import ComplexSigns

SHAPES = [(1, 1, 1), (1, 33, 130), (3, 16, 64), (17, 5, 257), (40, 50, 1030), (0, 8, 32)]


def normal(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.complex(torch.randn(*shape, generator=g), torch.randn(*shape, generator=g) * 2)


def rounded(x, bits):
    """Real and imaginary parts rounded a row, in numpy, and the scales."""

    def one(part):
        scale = np.abs(part).max(-1, keepdims=True, initial=0).astype(np.float32) / np.float32(2 ** (bits - 1) - 1)
        return np.rint(part / np.where(scale > 0, scale, 1).astype(np.float32)), scale

    return one(x.real.numpy()), one(x.imag.numpy())


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_integer_activations_are_four_exact_sums(isa, bits, conjugate, m, n, k):
    x, w = normal(m, k, seed=m), ComplexSigns.of(normal(n, k, seed=n))
    (u, a), (v, b) = rounded(x, bits)
    roots = np.array([1, 1j, -1, -1j])[w.unpacked().numpy()]
    sums = [
        (part.astype(np.int64) @ axis.astype(np.int64).T).astype(np.float32)
        for part in (u, v)
        for axis in (roots.real, roots.imag)
    ]
    ua, ub, va, vb = sums
    re, im = np.float32(w.scale_re), np.float32(w.scale_im)
    turn = np.float32(-1 if conjugate else 1)
    want = (a * re) * ua - turn * (b * im) * vb + 1j * ((a * im) * ub + turn * (b * re) * va)
    act = TensorFormat.parse(f"int{bits}/row")
    assert np.array_equal(ops.complex_matmul(x, w, act, conjugate).numpy(), want.astype(np.complex64))
    packed = ops.ComplexPacked.of(w)
    assert np.array_equal(ops.complex_matmul(x[None], packed, act, conjugate)[0].numpy(), want.astype(np.complex64))
    assert packed.nbytes == -(-2 * n // 16) * 16 * -(-k // 32) * 4


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_exact_activations_are_complex_products(isa, conjugate, m, n, k):
    x, w = normal(m, k, seed=m), ComplexSigns.of(normal(n, k, seed=n))
    values, given = w.dequantize().to(torch.complex128), x.to(torch.complex128)
    want = (given.conj() if conjugate else given) @ values.T
    got = ops.complex_matmul(x, w, None, conjugate)
    size = (x.abs().double() @ values.abs().T) * 2
    assert got.dtype == torch.complex64
    assert ((got - want).abs() <= (2 * k + 8) * torch.finfo(torch.float32).eps * size).all()


def test_without_the_native_module_the_reference_gives_the_same_bits(monkeypatch):
    x, w = normal(5, 129), ComplexSigns.of(normal(6, 129, seed=1))
    x[2] = 0
    x[3, 4] = complex(float("inf"), 0)
    packed = ops.ComplexPacked.of(w)
    want = torch.view_as_real(ops.complex_matmul(x, packed))
    assert want[3].isnan().all() and (want[2] == 0).all() and want[[0, 1, 4]].isfinite().all()
    monkeypatch.setattr(native, "load", lambda: None)
    for weight in (w, ops.ComplexPacked.of(w)):
        assert torch.equal(torch.view_as_real(ops.complex_matmul(x, weight)).nan_to_num(7.0), want.nan_to_num(7.0))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda w: ops.complex_matmul(torch.ones(2, 4), w), "complex numbers; got torch.float32"),
        (lambda w: ops.complex_matmul(normal(2, 5), w), "x has 5 columns, the weight 4"),
        (lambda w: ops.complex_matmul(normal(2, 4), w, TensorFormat.parse("int8/g32")), "a scale a row; got int8/g32"),
        (lambda w: ops.complex_matmul(normal(2, 4), w, TensorFormat.parse("e4m3fn/row")), "a scale a row; got e4m3fn/row"),
        (lambda w: ops.complex_matmul(normal(1, 70000), ComplexSigns.of(normal(1, 70000))), "sums of 70000 codes of 8 bits"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(FormatError, match=sentence):
        call(ComplexSigns.of(normal(3, 4)))


@pytest.mark.parametrize("power", [-60, -120])
def test_tiny_activations_give_the_bits_of_the_reference(isa, power, monkeypatch):
    x, w = normal(5, 40, seed=1) * 2.0**power, ComplexSigns.of(normal(9, 40, seed=2))
    got = ops.complex_matmul(x, w)
    monkeypatch.setattr(native, "load", lambda: None)
    assert torch.equal(got, ops.complex_matmul(x, w))
