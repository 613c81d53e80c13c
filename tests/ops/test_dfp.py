"""Dynamic fixed point against numpy's 64-bit integers, on every instruction set this machine has."""

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import dfp, native, reference
from anybit.tensors import encode, quantize

DFP16 = TensorFormat.parse("dfp16")
SHAPES = [(1, 1, 1), (1, 33, 130), (3, 16, 31), (7, 50, 257), (9, 49, 256), (17, 5, 700), (40, 97, 1030), (0, 8, 32)]


def exact(x, w, bits):
    """The float32 nearest to the sum of products, from the definition: numpy int64, and powers of two by frexp."""

    def codes(t, most):
        fraction, exponent = np.frexp(np.float32(np.abs(t).max(initial=0)) / np.float32(most))
        power = float(np.ldexp(1.0, int(exponent) - (fraction == 0.5)))
        return np.rint(t.astype(np.float64) / power).astype(np.int64), power

    most = 2 ** (bits - 1) - 1
    (a, p), (b, q) = codes(x, most), codes(w, most)
    return (a @ b.T).astype(np.float32) * np.float32(p * q)


@pytest.mark.parametrize("bits", [16, 13, 8])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_products_are_exact_sums_rounded_once(isa, bits, m, n, k):
    g = torch.Generator().manual_seed(m + n + k)
    x, w = torch.randn(m, k, generator=g) * 3, torch.randn(n, k, generator=g) / 7
    want = torch.from_numpy(exact(x.numpy(), w.numpy(), bits)) if m else torch.empty(0, n)
    assert torch.equal(ops.dfp_matmul(x, w, bits), want)
    bias = torch.randn(n, generator=g)
    packed = ops.prepack(ops.dfp_encode(w, bits))
    assert packed.element == "int16" and packed.nbytes < 2.2 * 16 * -(-n // 16) * (k + 31) + 64 * -(-n // 16)
    assert torch.equal(ops.dfp_matmul(x[None], packed, bits, bias), (want + bias)[None])
    if bits == 16:
        assert torch.equal(ops.matmul(x, packed, bias, DFP16), want + bias)


@pytest.mark.parametrize("case", ["lowest", "mixed", "one large", "last slot"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 17, 65), (9, 50, 300), (5, 18, 4608 + 7)])
def test_codes_that_would_overflow_long_chains(isa, case, m, n, k):
    rng = np.random.default_rng(k)
    a, b = rng.integers(-300, 300, (m, k)), rng.integers(-300, 300, (n, k))
    if case == "lowest":
        a[:], b[:] = -32767, -32768
    elif case == "mixed":
        a, b = rng.choice([-32767, 32767], (m, k)), rng.choice([-32768, 32767], (n, k))
    elif case == "one large":
        a[:, k // 2 : k // 2 + 9], b[:, k // 2 : k // 2 + 9] = 32767, -32768
    else:
        a[:, -3:], b[:, -3:] = 32767, -32768
    a[0, 0] = 32767  # the scale is 1
    w = encode(torch.from_numpy(b).float(), DFP16, torch.ones(1, 1))
    want = torch.from_numpy((a @ b.T).astype(np.float32))
    assert torch.equal(ops.matmul(torch.from_numpy(a).float(), ops.prepack(w), act=DFP16), want)


def test_a_row_does_not_depend_on_its_neighbours_or_threads(isa):
    module = native.load()
    x, w = torch.randn(19, 513), ops.prepack(quantize(torch.randn(70, 513), TensorFormat.parse("int16/row")))
    act, before = TensorFormat.parse("int16/row"), module.threads()
    y, shared = ops.matmul(x, w, act=act), ops.matmul(x, w, act=DFP16)
    assert torch.equal(torch.cat([ops.matmul(row[None], w, act=act) for row in x]), y)
    try:
        module.set_threads(3)
        assert torch.equal(ops.matmul(x, w, act=act), y)
        assert torch.equal(ops.matmul(x, w, act=DFP16), shared)
    finally:
        module.set_threads(before)


@pytest.mark.parametrize(
    "act", ["int16/row", "int16/g64", "int16/tensor", "int16n/row", "int8/row", "int5/g32", "int8/tensor:e8m0"]
)
@pytest.mark.parametrize("spec", ["int16/row", "int16/g128", "int16/g96:e8m0", "int16/tensor", "int16/b8x32", "int16"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 160), (5, 16, 257), (21, 24, 640)])
def test_other_scales_are_products_of_the_rounded_values(isa, act, spec, m, n, k):
    g = torch.Generator().manual_seed(k)
    x, w = torch.randn(m, k, generator=g), torch.randn(n, k, generator=g)
    w = quantize(w * 1000 if spec == "int16" else w, TensorFormat.parse(spec))
    rounded, values = reference.round_activations(x, TensorFormat.parse(act)).double(), w.dequantize(torch.float64)
    y, size = rounded @ values.T, rounded.abs() @ values.abs().T
    got = ops.matmul(x, ops.prepack(w), act=TensorFormat.parse(act))
    # sums of a block are exact; every block is rounded three times, and no more than those sums
    assert ((got.double() - y).abs() <= 8 * -(-k // 32) * torch.finfo(torch.float32).eps * size).all()


@pytest.mark.parametrize("spec", ["int16/row", "int16/g64", "int16/g20", "int16/tensor:e8m0"])
def test_int16_weights_meet_exact_activations_and_are_looked_up(isa, spec):
    w = quantize(torch.randn(37, 200), TensorFormat.parse(spec))
    x, packed = torch.randn(11, 200), ops.prepack(w)
    values = w.dequantize(torch.float64)
    y, size = x.double() @ values.T, x.double().abs() @ values.abs().T
    for rows in (1, 11):
        got = ops.matmul(x[:rows], packed)
        assert ((got.double() - y[:rows]).abs() <= 420 * torch.finfo(torch.float32).eps * size[:rows]).all()
    assert torch.equal(ops.embedding(torch.tensor([36, 0, 5]), packed), w.dequantize()[[36, 0, 5]])


def test_not_a_number_spoils_what_shares_its_scale(isa):
    x = torch.randn(3, 64)
    x[1, 5] = float("inf")
    w = ops.prepack(quantize(torch.randn(20, 64), TensorFormat.parse("int16/row")))
    y = ops.matmul(x, w, act=TensorFormat.parse("int16/row"))
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()
    assert ops.matmul(x, w, act=DFP16).isnan().all()


def test_zeros_give_zeros(isa):
    w = torch.randn(20, 64)
    assert torch.equal(ops.dfp_matmul(torch.zeros(4, 64), w), torch.zeros(4, 20))
    assert torch.equal(ops.dfp_matmul(torch.randn(4, 64), torch.zeros(20, 64)), torch.zeros(4, 20))


@pytest.mark.parametrize("bits", [16, 12, 8, 2])
def test_encoding_errs_by_half_a_step_and_follows_powers_of_two(bits):
    x = torch.randn(40, 33, generator=torch.Generator().manual_seed(bits))
    q = ops.dfp_encode(x, bits)
    step = float(q.scales()[0, 0])
    assert ((q.dequantize() - x).abs() <= step / 2).all()
    assert dfp.integers(q).max() <= 2 ** (bits - 1) - 1 and step == 2.0 ** round(np.log2(step))
    scaled = ops.dfp_encode(x * 2.0**-9, bits)
    assert torch.equal(scaled.codes, q.codes) and float(scaled.scales()[0, 0]) == step * 2.0**-9
    assert torch.equal(ops.dfp_encode(q.dequantize(), bits).dequantize(), q.dequantize())


def test_the_error_of_a_product_is_that_of_its_operands():
    x, w = torch.randn(64, 2048), torch.randn(64, 2048)
    y = x.double() @ w.double().T
    for bits, bound in ((16, 1.5e-4), (13, 1.2e-3)):
        assert (ops.dfp_matmul(x, w, bits).double() - y).norm() / y.norm() <= bound


def test_chains_are_as_long_as_norms_allow():
    ones = np.ones((2, 600), np.int64)
    assert dfp.chain_length(ones * 2896, ones * 2896) == 256
    assert (
        dfp.chain_length(ones * 32767, ones * 256) == 128
    )  # 32767 * 256 * 256 < 2^31 would leave a lower half no room
    assert dfp.chain_length(ones * 32767, ones * 32768) == 2
    assert dfp.chain_length(ones * 10000, ones * 10000) == 16
    full = np.full((3, 77), 32767), np.full((4, 77), -32768)
    assert np.array_equal(dfp.chained_product(*full, 2), full[0] @ full[1].T)
    with pytest.raises(FormatError, match="chains of 4 products do not fit"):
        dfp.chained_product(*full, 4)


def test_without_the_native_module_the_reference_gives_the_same_bits(monkeypatch):
    x, w, bias = torch.randn(5, 129), torch.randn(6, 129), torch.randn(6)
    packed = ops.prepack(ops.dfp_encode(w))
    want = ops.dfp_matmul(x, packed, 16, bias)
    monkeypatch.setattr(native, "load", lambda: None)
    assert torch.equal(ops.dfp_matmul(x, w, 16, bias), want)
    assert torch.equal(ops.dfp_matmul(x, ops.prepack(ops.dfp_encode(w)), 16, bias), want)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ops.dfp_encode(torch.ones(3), 17), "2 to 16 bits; got 17"),
        (lambda: ops.dfp_encode(torch.tensor([1.0, float("nan")])), "NaN or infinity"),
        (lambda: ops.dfp_matmul(torch.ones(2, 3), torch.ones(4, 3), 1), "2 to 16 bits; got 1"),
        (lambda: ops.dfp_matmul(torch.ones(2, 3), torch.ones(4, 5)), "x has 3 columns and the weight 5"),
        (lambda: ops.dfp_matmul(torch.ones(2, 5), quantize(torch.ones(4, 5), TensorFormat.parse("int8/row"))), "the weight is int8/row"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(FormatError, match=sentence):
        call()


def test_the_choice_of_a_kernel_is_explained():
    found = ops.explain("matmul", (64, 512, 512, "dfp16", "dfp16"))
    assert found["kernel"] == ("native int16" if native.load() else "reference")
    refused = {
        row["kernel"]: row["refused"]
        for row in ops.explain("matmul", (64, 512, 512, "int4/g128", "dfp16"))["candidates"]
    }
    assert (
        refused["native int16"] == "int4/g128 is not int16"
        and refused["native int8"] == "activations have more than 8 bits"
    )


@pytest.mark.parametrize("x", [torch.zeros(()), np.zeros((2, 8)), torch.zeros(2, 8, dtype=torch.complex64)])
def test_what_is_no_floating_tensor_is_refused(x):
    with pytest.raises(FormatError, match="x is a floating tensor"):
        ops.dfp_matmul(x, torch.zeros(3, 8))
    with pytest.raises(FormatError, match=r"matrix \[n, k\]; got 3 dimensions"):
        ops.dfp_matmul(torch.zeros(2, 8), torch.zeros(1, 3, 8))
    with pytest.raises(FormatError, match=r"2 to 16 bits; got 8\.5"):
        ops.dfp_matmul(torch.zeros(2, 8), torch.zeros(3, 8), 8.5)
