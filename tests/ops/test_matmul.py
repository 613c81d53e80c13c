"""Every kernel, on every instruction set this machine has, against float64 products of the stored values."""

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops import native, reference
from anybit.tensors import quantize

SPECS = [
    "int1/g32", "int2/g64", "int3/g32", "int4/g128", "int5/row", "int6/g64", "int7/g96", "int8/row", "int8n/g32", "uint4/g32+z",
    "int4/g32+z", "int3/g20", "int8/tensor", "int4/b8x32", "ternary/row", "nf4/g64", "e2m1/g32:e8m0", "nvfp4", "bipolar2/g32",
    "bipolar3/row", "e4m3fn/g64", "e5m2/row", "e3m2/g32:e8m0", "int4/g32:bf16", "int4/g16:e4m3fn",
]  # fmt: skip
EPS = torch.finfo(torch.float32).eps


def problem(spec, m, n, k, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(m, k, generator=g), quantize(torch.randn(n, k, generator=g), TensorFormat.parse(spec))


def exact(x, w, bias=None):
    """Product in float64, and the sum of magnitudes that bounds float32's rounding of it."""
    values = w.dequantize(torch.float64)
    y, size = x.double() @ values.T, x.double().abs() @ values.abs().T
    return (y, size) if bias is None else (y + bias.double(), size + bias.double().abs())


@pytest.mark.parametrize("values", ["1001,1002,1003,1004", "-70001,-70000", "0.5,1.5,2.5,3.5"])
@pytest.mark.parametrize("m", [1, 2])
def test_exact_integers_of_more_digits_than_bits(isa, values, m):
    """Numbers a step apart are packed as integers above the lowest, which may have more digits than tables of two bytes hold."""
    fmt = TensorFormat.parse(f"levels({values})/tensor")
    w = quantize(torch.rand(33, 96, generator=torch.Generator().manual_seed(0)), fmt)
    x = torch.randn(m, 96, generator=torch.Generator().manual_seed(1))
    y, size = exact(x, w)
    assert ((ops.matmul(x, ops.prepack(w)).double() - y).abs() <= 100 * EPS * size).all()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 130), (3, 16, 64), (17, 5, 257), (64, 40, 96), (0, 8, 32)])
def test_exact_activations(isa, spec, m, n, k):
    x, w = problem(spec, m, n, k)
    bias = torch.randn(n)
    y, size = exact(x, w, bias)
    got = ops.matmul(x, ops.prepack(w), bias)
    # k products and the scaling, each rounded once; zero points add the sum of |x| times the zero, at most as large again
    bound = (
        (2 * k + 8)
        * EPS
        * (size + (x.double().abs().sum(-1, keepdim=True) * w.scales().abs().max() * 2**w.format.bits))
    )
    assert got.shape == (m, n)
    assert ((got.double() - y).abs() <= bound).all()


@pytest.mark.parametrize(
    "spec",
    ["bf16", "int1/g32", "int3/g96", "int4/g128", "uint4/g32+z", "int4/g20", "int8/row", "uint8/g64+z", "bipolar1/g64",
     "bipolar8/row", "e2m1/g32:e8m0", "ternary/row", "nf4/g64"],
)  # fmt: skip
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 160), (5, 33, 160), (17, 48, 257), (37, 50, 512), (150, 17, 1100)])
def test_bf16_activations(isa, spec, m, n, k):
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(m)) * 3
    rounded = x.bfloat16().float()
    w = torch.randn(n, k, generator=torch.Generator().manual_seed(k))
    w = w.bfloat16() if spec == "bf16" else quantize(w, TensorFormat.parse(spec))
    values = w.double() if spec == "bf16" else w.dequantize(torch.float64)
    y, size = rounded.double() @ values.T, rounded.double().abs() @ values.abs().T
    # products of two bf16 are exact in float32; what is left are k sums and a scaling, each rounded once.  A code less its zero point is
    # exact too, so zero points add nothing to the bound.
    got = ops.matmul(x, ops.prepack(w), act=TensorFormat.parse("bf16"))
    assert ((got.double() - y).abs() <= (k + 8) * EPS * size + 1e-30).all()


@pytest.mark.parametrize("spec", ["int1/g32", "int4/g128", "uint4/g32+z", "int4/g20", "int8/row", "e2m1/g32:e8m0"])
@pytest.mark.parametrize("m", [1, 2, 5])
def test_few_rows_of_bf16_with_outliers(isa, spec, m):
    """Few rows may be integers of 23 bits of a group's largest magnitude: no worse than sums of the group in float32."""
    g = torch.Generator().manual_seed(m)
    n, k = 40, 600
    x = torch.randn(m, k, generator=g) * torch.exp2(torch.randint(-30, 12, (m, k), generator=g).float())
    x[:, 5] = -255 * 2.0**9  # the largest magnitude of a binade: the highest digit must not overflow
    x[:, 6] = 255 * 2.0**9
    x = x.bfloat16().float()
    w = quantize(torch.randn(n, k, generator=g), TensorFormat.parse(spec))
    values = w.dequantize(torch.float64)
    y, size = x.double() @ values.T, x.double().abs() @ values.abs().T
    lost = x.double().abs().amax(1, keepdim=True) * values.abs().sum(1) * 2.0**-22
    got = ops.matmul(x, ops.prepack(w), act=TensorFormat.parse("bf16"))
    assert ((got.double() - y).abs() <= (k + 8) * EPS * size + lost).all()


@pytest.mark.parametrize("m", [1, 9])
def test_kernels_round_to_bf16_as_the_format_does(isa, m):
    """A matrix of one 1 a row picks numbers out of x; bf16 holds what they were rounded to."""
    k = 96
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(m)) * torch.exp2(torch.arange(k) - 40.0)
    x[:, :6] = torch.tensor([1.00390625, 1.01171875, 3.4e38, -3.4e38, 1e-40, -1.5 * 2.0**-126])
    rounded = TensorFormat.parse("bf16").element.round(x)
    got = torch.stack(
        [
            ops.matmul(x[:, i : i + 1].contiguous(), ops.prepack(torch.ones(1, 1)), act=TensorFormat.parse("bf16"))
            for i in range(k)
        ],
        1,
    )
    assert torch.equal(got[..., 0], rounded)


@pytest.mark.parametrize("m", [1, 3])
def test_few_rows_of_bf16_that_are_zero_tiny_or_not_finite(isa, m):
    w = quantize(torch.ones(16, 256), TensorFormat.parse("int4/g128"))
    packed, act = ops.prepack(w), TensorFormat.parse("bf16")
    values = w.dequantize(torch.float64)
    assert (ops.matmul(torch.zeros(m, 256), packed, act=act) == 0).all()
    for size in (1e-30, 2.0**-110, 2.0**100):
        x = torch.full((m, 256), size).bfloat16().float()
        got = ops.matmul(x, packed, act=act).double()
        assert torch.allclose(got, x.double() @ values.T, rtol=1e-5, atol=0)
    for broken in (float("inf"), float("nan")):
        x = torch.ones(m, 256)
        x[0, 200] = broken
        got = ops.matmul(x, packed, act=act)
        assert not got[0].isfinite().any()
        assert torch.equal(got[1:], ops.matmul(torch.ones(m, 256), packed, act=act)[1:])


@pytest.mark.parametrize("act", ["int8/row", "int8/g32", "int8/g128", "int8/tensor", "int6/tensor:e8m0"])
@pytest.mark.parametrize(
    "spec", ["int2/g64", "int3/g32", "int4/g128", "int8/row", "uint4/g32+z", "ternary/row", "e2m1/g32:e8m0", "int5/g64"]
)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 160), (5, 16, 257), (70, 24, 128)])
def test_integer_activations(isa, act, spec, m, n, k):
    x, w = problem(spec, m, n, k)
    rounded = reference.round_activations(x, TensorFormat.parse(act))
    y, size = exact(rounded, w)
    got = ops.matmul(x, ops.prepack(w), act=TensorFormat.parse(act))
    bound = (
        (2 * k + 8)
        * EPS
        * (size + (rounded.double().abs().sum(-1, keepdim=True) * w.scales().abs().max() * 2**w.format.bits))
    )
    assert ((got.double() - y).abs() <= bound).all()


def test_integers_are_exact_against_numpy(isa):
    rng = np.random.default_rng(0)
    codes = rng.integers(-8, 8, (48, 256))
    x = rng.integers(-127, 128, (9, 256)).astype(np.float32)
    x[:, 0] = 127  # the scale of every row is 1
    codes[:, 0] = 7
    fmt = TensorFormat.parse("int4/row")
    w = quantize(torch.from_numpy(codes).float(), fmt)
    scale = w.scales().numpy()[:, 0]
    stored = np.rint(w.dequantize().numpy() / scale[:, None]).astype(np.int32)
    got = ops.matmul(torch.from_numpy(x), ops.prepack(w), act=TensorFormat.parse("int8/row")).numpy()
    want = (x.astype(np.int32) @ stored.T).astype(np.float64) * scale
    np.testing.assert_allclose(got, want, rtol=4 * EPS, atol=4 * EPS * 127 * 8)


@pytest.mark.parametrize("order", ["tiles", "bits", "nibbles"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sums_of_long_rows_do_not_overflow(isa, order, sign):
    """140000 products of 127 and 127 are beyond 2^31; and look-ups of the largest and the smallest sums."""
    k = 140_000
    w = quantize(torch.full((17, k), sign), TensorFormat.parse("int8/row"))
    packed, act = ops.prepack(w, order), TensorFormat.parse("int8/row")
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).repeat(1, k)
    for rows in (x, x[:1], x[1:2]):
        got = ops.matmul(rows, packed, act=act)
        torch.testing.assert_close(got, sign * k * rows[:, :1].repeat(1, 17), rtol=1e-5, atol=0)


PLANES = ["int1/g128", "int2/row", "uint3/g64+z", "int4/g20", "bipolar2/row", "ternary/row", "int6/g100", "int8/g128"]


@pytest.mark.parametrize("order", ["bits", "nibbles"])
@pytest.mark.parametrize("act", ["int8/row", "int4n/row", "int6/g64", "int2n/g32"])
@pytest.mark.parametrize("spec", PLANES)
def test_planes_give_the_bits_of_the_integer_product(isa, spec, act, order):
    """Sums are the same integers, scaled in the same order (the oracle of those: `test_integers_are_exact_against_numpy`)."""
    fmt = TensorFormat.parse(act)
    for m, n, k in ((1, 33, 160), (5, 16, 257), (19, 24, 640)):
        x, w = problem(spec, m, n, k)
        tiles = ops.prepack(w)
        if tiles.handle.padded_groups and fmt.block[1]:
            continue
        planes, bias = ops.prepack(w, order), torch.randn(n)
        assert planes.nbytes == tiles.nbytes and planes.order == order
        assert torch.equal(ops.matmul(x, planes, bias, fmt), ops.matmul(x, tiles, bias, fmt))


@pytest.mark.parametrize(
    "act", ["int8n/row", "int7/g32", "int6n/row", "int5/row", "int4/g64", "int3n/row", "int2n/row"]
)
def test_activations_of_fewer_bits(isa, act):
    """Against float64 with activations that formats rounded: the kernels' own rounding takes the same codes."""
    x, w = problem("int4/g64", 7, 33, 256)
    fmt = TensorFormat.parse(act)
    rounded = reference.round_activations(x, fmt)
    y, size = exact(rounded, w)
    got = ops.matmul(x, ops.prepack(w), act=fmt)
    assert (
        (got.double() - y).abs()
        <= 600 * EPS * (size + rounded.double().abs().sum(-1, keepdim=True) * w.scales().abs().max() * 16)
    ).all()
    assert ops.explain("matmul", (7, 33, 256, "int4/g64", act))["kernel"] == "native int8"


@pytest.mark.parametrize("act", ["int8/row", "int8/g32", "int4/g64", "int7/tensor"])
@pytest.mark.parametrize("weights", ["int2/tensor", "int8/g32"])
def test_codes_of_subnormal_scales_saturate(isa, act, weights):
    """Scales are whole multiples of 2^-149 there: one of them where the largest number is up to half again as many as there are codes."""
    w = quantize(torch.diag(torch.tensor([1.0, -1.0]).repeat(32)), TensorFormat.parse(weights))
    levels = 2 ** (TensorFormat.parse(act).element.bits - 1) - 1
    generator = torch.Generator().manual_seed(3)
    top = levels + 1 + levels // 3
    steps = torch.randint(-top, top + 1, (50, 64), generator=generator)
    steps[:, ::32], steps[::2, 1::32] = top, -top
    wanted = steps.clamp(-levels, levels).double() @ w.dequantize().double().T
    got = ops.matmul(steps.float() * 2.0**-149, ops.prepack(w), act=TensorFormat.parse(act)).double() * 2.0**149
    assert (got - wanted).abs().max() <= 0.5 + wanted.abs().max() * 1e-3  # results are whole multiples too


@pytest.mark.parametrize("order", ["bits", "nibbles"])
def test_one_preparation_serves_several_weights(order):
    act = TensorFormat.parse("int8/row")
    x, first = problem("int2/g64", 3, 40, 256)
    second = quantize(torch.randn(17, 256), TensorFormat.parse("int1/g128"))
    weights = [ops.prepack(w, order) for w in (first, second)]
    found = ops.plane_matmul(x.reshape(3, 1, 256), weights, act)
    assert [y.shape for y in found] == [(3, 1, 40), (3, 1, 17)]
    for y, w in zip(found, weights, strict=True):
        assert torch.equal(y[:, 0], ops.matmul(x, w, act=act))
    assert ops.plane_matmul(x[:0], weights, act)[0].shape == (0, 40)


def test_planes_refuse_what_they_do_not_multiply():
    x, w = problem("int2/g64", 3, 40, 256)
    planes = ops.prepack(w, "bits")
    with pytest.raises(ValueError, match="the weight is packed as bits"):
        ops.matmul(x, planes)
    with pytest.raises(ValueError, match="planes of bits multiply signed integer activations"):
        ops.plane_matmul(x, [planes], TensorFormat.parse("uint8/row+z"))
    with pytest.raises(ValueError, match="planes of bits multiply signed integer activations"):
        ops.plane_matmul(x, [ops.prepack(w)], TensorFormat.parse("int8/row"))
    with pytest.raises(
        ValueError, match="planes of bits are made of integers of 1 to 8 bits; nf4/g64 is packed as codebook"
    ):
        ops.prepack(quantize(torch.randn(8, 64), TensorFormat.parse("nf4/g64")), "nibbles")
    with pytest.raises(ValueError, match="need a quantized matrix on the CPU"):
        ops.prepack(torch.randn(8, 64), "bits")
    with pytest.raises(ValueError, match="in the order tiles, bits, nibbles; got 'rows'"):
        ops.prepack(w, "rows")
    other = ops.prepack(w, "nibbles")
    with pytest.raises(ValueError, match="lie in the same order"):
        ops.plane_matmul(x, [planes, other], TensorFormat.parse("int8/row"))


def test_levels_of_nf4_are_near_with_integer_activations(isa):
    x, w = problem("nf4/g64", 4, 32, 256)
    act = TensorFormat.parse("int8/row")
    y, size = exact(reference.round_activations(x, act), w)
    got = ops.matmul(x, ops.prepack(w), act=act)
    # two digits a level: an error of at most 1/32512 of the largest value each, beside float32's own
    assert ((got.double() - y).abs() <= size / 4000 + 1e-4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_plain_weights(isa, dtype):
    x, w = torch.randn(7, 130), torch.randn(19, 130).to(dtype)
    want = x.double() @ w.double().T
    got = ops.matmul(x, ops.prepack(w))
    assert ((got.double() - want).abs() <= 140 * EPS * (x.double().abs() @ w.double().abs().T)).all()


COMPANY = [
    "int1/g32", "int3/g64", "int4/g128", "uint4/g32+z", "uint8/g64+z", "int5/row", "int7/g96", "int8/g160", "bipolar2/g256",
    "bipolar5/g128", "bipolar8/row", "int4/g20", "nf4/g64", "bf16", "fp16", "fp32",
]  # fmt: skip


@pytest.mark.parametrize("spec", COMPANY)
def test_exact_rows_in_any_company(isa, spec):
    """A row has the same bits among 2, 3, 4 or 130 rows, and in the last panels as in the first: what is taken at once is no order."""
    x, w = problem(spec, 130, 85, 544)
    packed, module = ops.prepack(w), native.load()
    before = module.threads()
    try:
        module.set_threads(1)  # else a share may be too few panels to be taken at once
        all_rows = ops.matmul(x, packed)
        y, size = exact(x, w)
        assert ((all_rows.double() - y).abs() <= 2200 * EPS * (size + x.double().abs().sum(-1, keepdim=True))).all()
        for m in (2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 97):
            for first in (0, 130 - m):
                assert torch.equal(ops.matmul(x[first : first + m], packed), all_rows[first : first + m])
        assert torch.equal(ops.matmul(x[:9], ops.prepack(w.rows(48, 85))), all_rows[:9, 48:])
        module.set_threads(3)
        assert torch.equal(ops.matmul(x[:3], packed), all_rows[:3])
    finally:
        module.set_threads(before)


@pytest.mark.parametrize(
    "spec", ["int1/g64", "int4/g128", "int5/row", "int8/g64", "int8/row", "e2m1/g32:e8m0", "nf4/g128"]
)
def test_many_rows_have_the_bits_of_single_ones(isa, spec):
    """Whatever rows and panels a kernel takes at once and where a chunk begins."""
    module, act = native.load(), TensorFormat.parse("int8/g64")
    x, w = problem(spec, 131, 117, 704)
    packed, before = ops.prepack(w), module.threads()
    try:
        module.set_threads(3)
        for m in (9, 17, 131):
            together = ops.matmul(x[:m], packed, act=act)
            for row in (0, 8, 15, 16, m - 1):
                if row < m:
                    assert torch.equal(together[row], ops.matmul(x[row], packed, act=act))
    finally:
        module.set_threads(before)


@pytest.mark.parametrize(
    ("m", "n"), [(33, 200), (1, 1610), (17, 1610)]
)  # the last panels of wide ones go to who is done first
def test_threads_do_not_change_the_bits(m, n):
    module = native.load()
    x, w = problem("int4/g64", m, n, 256)
    packed, before = ops.prepack(w), module.threads()
    try:
        results = []
        for threads in (1, 2, 3):
            module.set_threads(threads)
            results.append(ops.matmul(x, packed, act=TensorFormat.parse("int8/g128")))
    finally:
        module.set_threads(before)
    assert all(torch.equal(r, results[0]) for r in results)


def test_unpacked_weights_other_dtypes_and_leading_dimensions():
    x, w = problem("int4/g32", 6, 10, 64)
    batched = x.view(2, 3, 64).to(torch.bfloat16)
    got = ops.matmul(batched, w)
    assert (got.shape, got.dtype) == ((2, 3, 10), torch.bfloat16)
    torch.testing.assert_close(got.float(), reference.matmul(batched.float(), w), rtol=2**-8, atol=1e-3)
    plain = torch.randn(10, 64)
    torch.testing.assert_close(ops.matmul(x, plain), x @ plain.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        ops.matmul(x, w, act=TensorFormat.parse("mxfp8")),
        reference.matmul(x, w, act=TensorFormat.parse("mxfp8")),
        rtol=1e-4,
        atol=1e-4,
    )


def test_refuses_what_does_not_fit():
    x, w = problem("int4/g32", 2, 10, 64)
    with pytest.raises(ValueError, match="x has 64 columns, the weight 32"):
        ops.matmul(x, torch.zeros(4, 32))
    with pytest.raises(ValueError, match=r"shape \(10,\); got \(3,\)"):
        ops.matmul(x, w, torch.zeros(3))


def test_explain_names_the_kernel_and_every_refusal():
    row = ops.explain("matmul", (1, 4096, 4096, "int4/g128", "int8/g128"))
    assert row["kernel"] == "native int8"
    assert row["predicted_seconds"] > 0
    by_name = {c["kernel"]: c for c in row["candidates"]}
    assert by_name["torch linear"]["refused"] == "the weight is packed"
    assert by_name["native exact"]["refused"] == "integers multiply these"
    assert ops.explain("matmul", (512, 64, 64, "e4m3fn/row", "int8/row"))["kernel"] == "native exact"
    with pytest.raises(ValueError, match="only 'matmul'"):
        ops.explain("softmax", (1, 1, 1, "int4/row", None))
