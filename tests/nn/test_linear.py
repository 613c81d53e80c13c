"""QLinear computes with exactly the values it stores, whatever the shape, dtype or bias."""

import copy
import io

import pytest
import torch
from torch import nn

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.nn import QLinear
from anybit.ops import StaticFormat, matmul
from anybit.tensors import quantize


@pytest.mark.parametrize("spec", ["int8/row", "int4/g32", "int3/g64+z", "nf4/g32", "e2m1/g16:e4m3fn+t", "int2/tensor"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (0,)])
def test_forward_equals_the_dequantized_layer_in_float64(spec, shape):
    torch.manual_seed(0)
    layer = nn.Linear(70, 33)
    q = QLinear.from_float(layer, TensorFormat.parse(spec))
    x = torch.randn(*shape, 70)
    w = q.weight.dequantize(torch.float64)
    want = x.double() @ w.T + layer.bias.double()
    # float32 sums of 70 products: at most 70 roundings of eps relative to the sum of magnitudes
    bound = 70 * torch.finfo(torch.float32).eps * (x.double().abs() @ w.abs().T + layer.bias.double().abs())
    got = q(x)
    assert got.shape == (*shape, 33)
    assert ((got.double() - want).abs() <= bound).all()


def test_state_dict_is_the_checkpoint_and_loading_forgets_the_packing():
    a, b = (QLinear.from_float(nn.Linear(64, 16, bias=False), TensorFormat.parse("int4/g32")) for _ in range(2))
    assert set(a.state_dict()) == {"codes", "scale"}
    x = torch.randn(3, 64)
    before = b(x)
    b.load_state_dict(a.state_dict())
    torch.testing.assert_close(b(x), a(x), rtol=0, atol=0)
    assert not torch.equal(b(x), before)


def test_copies_and_files_do_not_hold_native_memory():
    q = QLinear.from_float(nn.Linear(64, 16), TensorFormat.parse("int4/g32"))
    x = torch.randn(3, 64)
    want = q(x)
    torch.testing.assert_close(copy.deepcopy(q)(x), want, rtol=0, atol=0)
    file = io.BytesIO()
    torch.save(q.state_dict(), file)
    file.seek(0)
    fresh = QLinear.empty(16, 64, TensorFormat.parse("int4/g32"), bias=True)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(x), want, rtol=0, atol=0)


def test_casting_the_module_keeps_the_scales():
    q = QLinear.from_float(nn.Linear(64, 16), TensorFormat.parse("int4/g32"))
    scale = q.scale.clone()
    q.to(torch.bfloat16)
    assert q.scale.dtype == torch.float16
    assert torch.equal(q.scale, scale)
    assert q.bias.dtype == torch.bfloat16
    assert q(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_quantized_activations_are_near_exact_ones():
    q = QLinear(quantize(torch.randn(32, 256), TensorFormat.parse("int4/g64")), act=TensorFormat.parse("int8/row"))
    x = torch.randn(5, 256)
    exact = x @ q.weight.dequantize().T
    # 8 bits with absmax about 3.2 standard deviations: steps of 0.025, rms error 0.0073, against rms 1
    assert (q(x) - exact).norm() / exact.norm() < 0.015
    assert not torch.equal(q(x), exact)


def test_a_static_scale_is_part_of_the_state():
    fmt, spec = StaticFormat.parse("int8/static"), TensorFormat.parse("int8/row")
    weight = quantize(torch.randn(16, 64), spec)
    made = QLinear(weight, act=fmt, input_scale=0.03)
    assert set(made.state_dict()) == {"codes", "scale", "input_scale"}
    x = torch.randn(5, 64) * 3
    wanted = matmul(x, weight, act=fmt.at(0.03))
    assert torch.equal(made(x), wanted)
    assert torch.equal(made(x[2:3])[0], wanted[2])
    fresh = QLinear.empty(16, 64, spec, act=fmt)
    with pytest.raises(FormatError, match=r"finite and above 0; got 0\.0"):
        fresh(x)
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(x), wanted)
    fresh.to(torch.bfloat16)
    assert fresh.input_scale.dtype == torch.float32 and torch.equal(copy.deepcopy(fresh)(x), wanted)
    fresh.load_state_dict(made.state_dict() | {"input_scale": torch.tensor(0.5)})
    assert torch.equal(fresh(x), matmul(x, weight, act=fmt.at(0.5)))


def test_a_static_format_and_its_scale_come_together():
    weight = quantize(torch.randn(16, 64), TensorFormat.parse("int8/row"))
    for act, scale in ((StaticFormat.parse("int8/static"), None), (TensorFormat.parse("int8/row"), 0.1), (None, 0.1)):
        with pytest.raises(FormatError, match="come together"):
            QLinear(weight, act=act, input_scale=scale)


def test_int8_levels_are_asked_for_by_the_layer():
    torch.manual_seed(0)
    exact = QLinear.from_float(nn.Linear(64, 32), TensorFormat.parse("nf4/g32"))
    rounded = QLinear(exact.weight, exact.bias, levels="int8")
    x = torch.randn(5, 64)
    off = (exact(x) - rounded(x)).abs()
    # half a step of 127 of the largest level, which is 1, for every product
    assert (
        off.max() > 0
        and (off <= x.abs() @ torch.repeat_interleave(exact.weight.scales(), 32, 1).T.abs() / 254 + 1e-4).all()
    )
