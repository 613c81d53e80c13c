"""Static activations: sums are those of numpy in int64, a row does not depend on its batch, and what lies beyond the scale saturates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.ops import StaticActivations, StaticFormat, native, reference
from anybit.ops.static import activations
from anybit.tensors import quantize

MODULE = native.load()
native_only = pytest.mark.skipif(MODULE is None, reason="the native module is not built (make native)")
INT8 = StaticFormat.parse("int8/static")


@pytest.fixture
def isas():
    """Called with a test of one instruction set, runs it on every one there is."""
    before = MODULE.isa()

    def each(check):
        for name, _, present in MODULE.isas():
            if present:
                MODULE.set_isa(name)
                check(name)

    yield each
    MODULE.set_isa(before)


def codes(x: torch.Tensor, scale: float, levels: int) -> np.ndarray:
    """int64 codes, by numpy's float32 division."""
    steps = np.rint(x.numpy() / np.float32(scale))
    return np.clip(steps, -levels, levels).astype(np.int64)


def test_specs():
    assert str(INT8) == "int8/static" and INT8.largest == 127
    assert activations("int8/static") == INT8
    assert activations("int8/row") == TensorFormat.parse("int8/row")
    assert StaticFormat.parse("e4m3fn/static").largest == 448
    for spec in ("uint8/static", "int2/static", "nf4/static", "bf16/static", "ternary/static", "e8m0/static"):
        with pytest.raises(FormatError, match="static activations are signed integers of 3 to 8 or 16 bits"):
            StaticFormat.parse(spec)
    with pytest.raises(FormatError, match="int99"):
        StaticFormat.parse("int99/static")
    with pytest.raises(FormatError, match="'int8/row' is not static"):
        StaticFormat.parse("int8/row")


def test_a_scale_makes_the_top_the_largest_value():
    assert INT8.scale_for(254.0) == 2.0
    assert INT8.scale_for(0.0) == 1.0  # inputs that were all zero leave nothing to measure
    assert 0 < INT8.scale_for(1e-44) == np.finfo(np.float32).tiny
    for top in (float("nan"), float("inf"), -1.0):
        with pytest.raises(FormatError, match="finite magnitude"):
            INT8.scale_for(top)
    for scale in (0.0, -1.0, float("nan"), float("inf"), 1e-60, 1e60):
        with pytest.raises(FormatError, match="finite and above 0"):
            INT8.at(scale)


def test_rounding_is_numpys_and_saturates():
    x = torch.tensor([[0.0, 0.5, 1.5, -2.5, 126.6, 127.5, 1e30, -1e30], [-0.4, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, -128.0]])
    got = INT8.at(1.0).round(x)
    assert torch.equal(got, torch.from_numpy(codes(x, 1.0, 127)).float())
    assert got.abs().max() == 127
    float8 = StaticFormat.parse("e4m3fn/static").at(0.5).round(torch.tensor([[1e9, -1e9, 0.5 * 448, 0.26]]))
    assert float8[0, :3].tolist() == [224.0, -224.0, 224.0]
    assert abs(float8[0, 3].item() - 0.26) <= 0.26 * 2**-4


def test_rows_that_are_not_finite_are_nan_and_spare_the_others():
    x = torch.randn(4, 32)
    x[1, 3], x[2, 0] = float("nan"), float("-inf")
    got = INT8.at(0.02).round(x)
    assert got[1:3].isnan().all() and got[[0, 3]].isfinite().all()


@native_only
@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("spec", ["int8/row", "int4/g64", "uint4/g32+z", "int3/g48", "e2m1/g32:e8m0", "nf4/g64"])
@pytest.mark.parametrize("m", [1, 2, 5, 17, 40])
def test_codes_are_the_references_on_every_isa(isas, spec, bits, m):
    """Weights of any kind meet the same codes, of rows that saturate and of rows that do not; what is left is the order of sums."""
    g = torch.Generator().manual_seed(m)
    x = torch.randn(m, 192, generator=g) * torch.tensor([1.0, 9.0])[torch.arange(m) % 2, None]
    w = quantize(torch.randn(37, 192, generator=g), TensorFormat.parse(spec))
    act = StaticFormat.parse(f"int{bits}/static").at(2.5 / (2 ** (bits - 1) - 1))
    packed, results = ops.prepack(w), []
    wanted = reference.round_activations(x, act).double() @ w.dequantize(torch.float64).T
    size = x.abs().double() @ w.dequantize(torch.float64).abs().T
    levels = 2.0**-14 if spec == "nf4/g64" else 0.0  # whose values are two digits of 8 bits

    def check(name: str) -> None:
        got = ops.matmul(x, packed, act=act)
        assert ((got - wanted).abs() <= (2**-21 + levels) * size + 1e-6).all(), name
        results.append(got)

    isas(check)
    assert all(torch.equal(each, results[0]) for each in results)


@native_only
@pytest.mark.parametrize("m", [1, 4, 33])
def test_sums_are_exact_in_integers(isas, m):
    """One scale a row of the weight: numpy's int64 sums, scaled in float32 in the order that kernels state."""
    g = torch.Generator().manual_seed(m)
    x, w = (
        3 * torch.randn(m, 320, generator=g),
        quantize(torch.randn(48, 320, generator=g), TensorFormat.parse("int8/row")),
    )
    scale = np.float32(0.031)
    sums = codes(x, scale, 127) @ w.format.element.decode(w.unpacked()).long().numpy().T
    wanted = sums.astype(np.float32) * w.scale.numpy()[:, 0] * scale

    def check(name: str) -> None:
        got = ops.matmul(x, ops.prepack(w), act=INT8.at(float(scale))).numpy()
        np.testing.assert_array_equal(got, wanted, err_msg=name)

    isas(check)


@native_only
def test_quotients_at_the_middle_between_codes_round_as_division_does(isas):
    """Through ones on a diagonal: at, beside and beyond the limit, and at scales whose reciprocals are no normal numbers."""
    generator = np.random.default_rng(0)
    ones = ops.prepack(quantize(torch.eye(64), TensorFormat.parse("int2/tensor")))
    for exponent in (-149, -126, -60, 0, 60, 119):
        scale = np.float32(np.ldexp(1 + generator.random() / 2, exponent))
        steps = generator.integers(-131, 131, (8, 64)) + np.float32(0.5)
        x = (steps.astype(np.float64) * scale).astype(np.float32)
        x[::2] = np.nextafter(x[::2], np.float32(np.inf))
        with np.errstate(over="ignore"):
            wanted = np.clip(np.rint(x / scale), -127, 127) * scale

        def check(name: str) -> None:
            got = ops.matmul(torch.from_numpy(x), ones, act=INT8.at(float(scale))).numpy()  # noqa: B023 (called at once)
            np.testing.assert_array_equal(got, wanted, err_msg=f"{name} 2^{exponent}")  # noqa: B023

        isas(check)


@native_only
@pytest.mark.parametrize("spec", ["int8/row", "int4/g32", "nf4/g32"])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(isas, spec):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 256, generator=g) * torch.logspace(-2, 2, 40)[:, None]
    w = ops.prepack(quantize(torch.randn(50, 256, generator=g), TensorFormat.parse(spec)))
    act = INT8.at(0.03)

    def check(name: str) -> None:
        together = ops.matmul(x, w, act=act)
        for rows in ([0], [7], [39, 3], [*range(20, 40)]):
            assert torch.equal(ops.matmul(x[rows], w, act=act), together[rows]), name

    isas(check)


@native_only
def test_a_row_with_nan_gives_nan_in_kernels_too(isas):
    x = torch.randn(5, 96)
    x[1, 5], x[3, 0] = float("inf"), float("nan")
    w = ops.prepack(quantize(torch.randn(20, 96), TensorFormat.parse("int4/g32")))

    def check(name: str) -> None:
        y = ops.matmul(x, w, act=INT8.at(0.02))
        assert y[[1, 3]].isnan().all() and y[[0, 2, 4]].isfinite().all(), name

    isas(check)


def test_sixteen_bits_and_floats_are_rounded_likewise():
    x, w = torch.randn(6, 128), torch.randn(16, 128)
    for spec, weights, bound in (("int16/static", "int16/tensor:e8m0", 2e-4), ("e4m3fn/static", "int8/row", 0.06)):
        fmt = StaticFormat.parse(spec)
        act = fmt.at(fmt.scale_for(float(x.abs().max())))
        q = quantize(w, TensorFormat.parse(weights))
        got, exact = ops.matmul(x, ops.prepack(q), act=act), x @ q.dequantize().T
        rounded = reference.matmul(x, q, None, act)
        torch.testing.assert_close(got, rounded, rtol=1e-4, atol=1e-4)
        assert 0 < (got - exact).norm() / exact.norm() < bound


def test_kept_columns_do_not_saturate_nor_count():
    """LLM.int8(): columns apart are multiplied as they are, however far they lie beyond the scale."""
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(9, 128, generator=g), torch.randn(24, 128, generator=g)
    columns = torch.tensor([5, 70])
    x[:, columns] *= 1000
    q = quantize(w.index_fill(1, columns, 0.0), TensorFormat.parse("int8/row"))
    act = INT8.at(INT8.scale_for(4.0))
    packed = ops.keep_columns(ops.prepack(q), columns, w[:, columns])
    got = ops.matmul(x, packed, act=act)
    wanted = act.round(x.index_fill(1, columns, 0.0)) @ q.dequantize().T + x[:, columns] @ w[:, columns].T
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-2)


def test_other_arithmetic_takes_them():
    x, w = torch.randn(3, 64), torch.randn(8, 64)
    act = INT8.at(0.02)
    wanted = act.round(x) @ w.T
    torch.testing.assert_close(ops.matmul(x, w, act=act), wanted)
    torch.testing.assert_close(ops.matmul(x, w, act=act, determinism="invariant"), wanted)
    torch.testing.assert_close(ops.matmul(x, w, act=act, accumulate=ops.Accumulator()), wanted)


@native_only
def test_one_weight_takes_several_scales_in_turn():
    """What the call before settled is not taken for another scale."""
    x, w = torch.randn(1, 64), ops.prepack(quantize(torch.randn(8, 64), TensorFormat.parse("int4/g32")))
    for scale in (0.02, 0.5, 0.02, 0.02, 0.5):
        fresh = ops.prepack(quantize(torch.zeros(8, 64), TensorFormat.parse("int4/g32")))
        assert not torch.equal(ops.matmul(x, w, act=INT8.at(scale)), ops.matmul(x, fresh, act=INT8.at(scale)))
        rounded = INT8.at(scale).round(x)
        torch.testing.assert_close(ops.matmul(x, w, act=INT8.at(scale)), ops.matmul(rounded, w), rtol=1e-4, atol=1e-4)


def test_kernels_refuse_impossible_scales():
    if MODULE is None:
        pytest.skip("the native module is not built")
    w = ops.prepack(quantize(torch.randn(8, 64), TensorFormat.parse("int4/g32")))
    x, y = np.zeros((1, 64), np.float32), np.zeros((1, 8), np.float32)
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite and above 0"):
            MODULE.matmul(w.handle, x, 0, y, None, scale=scale)
    with pytest.raises(ValueError, match="leaves none to groups"):
        MODULE.matmul(w.handle, x, 32, y, None, scale=1.0)


def test_they_cost_what_one_dynamic_scale_for_all_rows_does():
    static, dynamic = (ops.explain("matmul", (16, 512, 512, "int4/g64", act)) for act in ("int8/static", "int8/tensor"))
    assert static == dynamic


def test_planes_say_that_they_do_not_take_them():
    w = quantize(torch.randn(8, 64), TensorFormat.parse("int4/g32"))
    if MODULE is None:
        pytest.skip("the native module is not built")
    with pytest.raises(ValueError, match="no kernel accepts"):
        ops.matmul(torch.randn(2, 64), ops.prepack(w, order="bits"), act=StaticActivations(INT8, 0.1))
