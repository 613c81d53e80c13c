"""What must hold for arrays.py: numpy and torch inputs keep their kind, and the bit tricks agree with frexp."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import arrays, get


def test_namespace_tells_numpy_from_torch_and_refuses_others() -> None:
    assert arrays.namespace(np.zeros(2)) is np
    assert arrays.namespace(torch.zeros(2)) is torch
    with pytest.raises(FormatError, match="numpy array or a torch tensor; got list"):
        arrays.namespace([1.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_power_below_is_the_power_of_two_of_frexp(dtype: type) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(2000) * 2.0 ** rng.integers(-120, 120, 2000)).astype(dtype)
    wanted = np.ldexp(1.0, np.frexp(x.astype(np.float64))[1] - 1)
    assert np.array_equal(arrays.power_below(x), wanted)
    assert np.array_equal(arrays.power_below(torch.from_numpy(x)).numpy(), wanted)
    assert np.array_equal(arrays.exponent_of_power(arrays.power_below(x)), np.log2(wanted))


def test_power_below_at_the_edges() -> None:
    x = np.array([0.0, -0.0, 1e-45, np.inf, -np.inf, np.nan], np.float32)
    assert np.array_equal(arrays.power_below(x), np.array([0, 0, 0, np.inf, np.inf, np.inf], np.float32))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int32], ids=lambda d: np.dtype(d).name
)
def test_working_type_is_exact_and_restore_gives_the_type_back(dtype: type) -> None:
    x = np.array([1, -3, 0, 96], dtype)
    work = arrays.working(x)
    assert work.dtype in (np.float32, np.float64)
    assert np.array_equal(work.astype(np.float64), x.astype(np.float64))
    assert arrays.restore(work, x).dtype == (np.float64 if np.dtype(dtype).kind == "i" else dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_torch_types_come_back(dtype: torch.dtype) -> None:
    assert get("int8").round(torch.tensor([1.25, -300.0], dtype=dtype)).dtype == dtype


def test_text_and_complex_numbers_are_refused() -> None:
    with pytest.raises(FormatError, match="expected real numbers"):
        get("int8").round(np.array(["a"]))
    for x in (np.array([None]), np.array([1.5], object), np.array(["2001-01-01"], "datetime64[s]")):
        with pytest.raises(FormatError, match="expected real numbers; got an array of"):
            get("e4m3fn").round(x)
    for x in (np.array([1j]), torch.tensor([1j])):
        with pytest.raises(FormatError, match="expected real numbers; got an array of"):
            get("e4m3fn").encode(x)


@pytest.mark.parametrize(("bits", "numpy_type", "torch_type"), [
    (4, np.uint8, torch.uint8), (8, np.uint8, torch.uint8), (16, np.uint16, torch.int32), (32, np.uint32, torch.int64),
])  # fmt: skip
def test_code_types(bits: int, numpy_type: type, torch_type: torch.dtype) -> None:
    assert arrays.code_array(np.array([1, 2]), bits).dtype == numpy_type
    assert arrays.code_array(torch.tensor([1, 2]), bits).dtype == torch_type


def test_unsigned_64_bit_tensors_are_rounded_once_as_numpy_ones_are() -> None:
    values = [2**60 + 2**52 + 1, 2**63 + 5, 2**64 - 1, 2**63 - 1, 0, 3]
    ours, numpys = torch.tensor(values, dtype=torch.uint64), np.array(values, dtype=np.uint64)
    for fmt in (get("bf16"), get("fp16"), get("int8")):
        assert np.array_equal(fmt.round(ours).numpy(), fmt.round(numpys))
    assert np.array_equal(get("int8").round(ours, overflow="wrap").numpy(), get("int8").round(numpys, overflow="wrap"))


def test_codes_are_not_looked_at_where_a_tracer_stands_for_them() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    codes, fmt = torch.tensor([1, 2, 5]), get("e2m1")
    with FakeTensorMode() as mode:
        assert fmt.decode(mode.from_tensor(codes), torch.float32).shape == (3,)
    for kind in ("real", "fake"):
        graph = make_fx(lambda c: fmt.decode(c, torch.float32), tracing_mode=kind)(codes)
        assert torch.equal(graph(codes), fmt.decode(codes, torch.float32))
    with pytest.raises(FormatError, match="e2m1 has codes 0 to 15; got 16"):
        fmt.decode(torch.tensor([16]), torch.float32)


def test_long_doubles_beyond_float64_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    big = np.array(["inf", "1e400", "-1e400", "nan", "1"], dtype=np.longdouble)
    assert np.array_equal(get("fp32").round(big)[[0, 4]].astype(float), [float(get("fp32").max), 1])
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
