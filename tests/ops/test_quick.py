"""The second call of a product goes into C at once (`Packed.quick`): the same bits, and whatever differs goes the long way."""

import importlib

import pytest
import torch

from anybit import _native, ops
from anybit.formats import TensorFormat
from anybit.tensors import quantize

ACT = TensorFormat.parse("int8/g64")


def packed(spec: str = "int4/g64", order: ops.packed.Order = "tiles") -> ops.Packed:
    weight = torch.randn(40, 192, generator=torch.Generator().manual_seed(1))
    return ops.prepack(quantize(weight, TensorFormat.parse(spec)), order)


@pytest.mark.parametrize("spec", ["int4/g64", "nf4/g64", "e4m3fn/g64"])
@pytest.mark.parametrize("act", [None, "bf16", "int8/g64", "int8/row", "int4/row", "int8/tensor"])
@pytest.mark.parametrize("shape", [(192,), (1, 192), (7, 192), (2, 3, 192)])
def test_gives_the_same_bits(spec, act, shape) -> None:
    fmt = None if act is None else TensorFormat.parse(act)
    w, x, bias = packed(spec), torch.randn(shape), torch.nn.Parameter(torch.randn(40))
    for b in (None, bias):
        first = ops.matmul(x, packed(spec), b, fmt)
        for _ in range(3):
            again = ops.matmul(x, w, b, fmt)
            assert torch.equal(again, first) and again.shape == (*shape[:-1], 40) and not again.requires_grad
    if w.integer or act not in ("int8/g64", "int8/row", "int4/row", "int8/tensor"):
        assert w.quick and w.quick[0][0] is fmt and torch.equal(w.quick[0][2](x, None), ops.matmul(x, w, None, fmt))


@pytest.mark.parametrize("order", ["bits", "nibbles"])
@pytest.mark.parametrize("act", ["int8/g64", "int8/row", "int3n/row"])
@pytest.mark.parametrize("shape", [(192,), (7, 192), (2, 3, 192)])
def test_planes_give_the_same_bits(order, act, shape) -> None:
    fmt = TensorFormat.parse(act)
    w, x, bias = packed("int3/g64", order), torch.randn(shape), torch.randn(40)
    for b in (None, bias):
        first = ops.plane_matmul(x, [w], fmt, b)[0]
        for _ in range(3):
            assert torch.equal(ops.matmul(x, w, b, fmt), first)
        assert w.quick[0][0] is fmt and torch.equal(w.quick[0][2](x, b), first)
    assert w.quick[0][2](x.double(), None) is None
    with pytest.raises(ValueError, match="activations have 2 to 8 bits; got 9"):
        _native.Quick(torch.Tensor, w.handle, 7, 0, act_bits=9)
    with pytest.raises(ValueError, match="multiple of 32"):
        _native.Quick(torch.Tensor, w.handle, 7, 33, act_bits=8)


def test_takes_only_what_it_was_made_for() -> None:
    w, x = packed(), torch.randn(4, 192)
    ops.matmul(x, w, act=ACT)
    quick = w.quick[0][2]
    wide = torch.randn(4, 384)
    for other in (
        x[:2], x[:, :128].contiguous(), wide[:, ::2], x.double(), x.half(), x.T.contiguous().T, torch.randn(0, 192),
        x.to("meta"), x.numpy(), 3,
    ):  # fmt: skip
        assert quick(other, None) is None
    for bias in (torch.randn(39), torch.randn(40).double(), torch.randn(80)[::2], torch.randn(1, 40), "bias"):
        assert quick(x, bias) is None
    assert quick(x.clone().requires_grad_(), torch.randn(40)) is not None
    for other in (x[:2], wide[:, ::2], x.double(), x.half()):
        expected = ops.matmul(other.float().contiguous(), packed(), act=ACT)
        torch.testing.assert_close(ops.matmul(other, w, act=ACT).float(), expected, rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="128 columns"):
        ops.matmul(x[:, :128], w, act=ACT)
    with pytest.raises(ValueError, match="bias must have the shape"):
        ops.matmul(x, w, torch.randn(39), ACT)


def test_other_activations_dtypes_and_arithmetic_go_the_long_way() -> None:
    w, x = packed(), torch.randn(4, 192)
    for act in (ACT, None, TensorFormat.parse("int8/row"), ACT):
        assert torch.equal(ops.matmul(x, w, act=act), ops.matmul(x, packed(), act=act))
    assert ops.matmul(x, w, act=ACT, out_dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="layercast keeps weights"):
        ops.matmul(x, w, act=ACT, determinism="layercast")


def test_notices_other_threads_and_instruction_sets() -> None:
    w, x = packed(), torch.randn(4, 192)
    expected = ops.matmul(x, w, act=ACT)
    quick, before = w.quick[0][2], _native.threads()
    try:
        _native.set_threads(before + 1)
        assert quick(x, None) is None and torch.equal(ops.matmul(x, w, act=ACT), expected)
        assert w.quick[0][2] is not quick
        _native.set_threads(before)
        _native.set_isa("scalar")
        assert quick(x, None) is None and torch.equal(ops.matmul(x, w, act=ACT), expected)
    finally:
        _native.set_threads(before)
        _native.set_isa("auto")


def test_large_results_are_ordinary_tensors_on_pages_of_their_own() -> None:
    w, x = packed(), torch.randn(2, 20_000, 192)  # results of 6.4 MB
    expected = torch.cat([ops.matmul(part, packed(), act=ACT) for part in x.reshape(8, 5000, 192)]).reshape(
        2, 20_000, 40
    )
    kept = [ops.matmul(x, w, act=ACT) for _ in range(4)]
    assert w.quick and len({y.data_ptr() for y in kept}) == 4
    for y in kept:
        assert torch.equal(y, expected) and y.is_contiguous() and y.data_ptr() % 64 == 0
    row = kept[1][1, 7]
    free = kept[1].data_ptr()
    del kept[1], y
    assert ops.matmul(-x, w, act=ACT).data_ptr() != free, "a view holds the memory"
    assert torch.equal(row, expected[1, 7])
    del row
    again = ops.matmul(-x, w, act=ACT)
    again[0] = 0.0
    assert all(torch.equal(y, expected) for y in kept)


def test_torch_without_the_table_computes_the_same(monkeypatch) -> None:
    module = importlib.import_module("anybit.ops.matmul")
    w, x = packed(), torch.randn(4, 192)
    expected = ops.matmul(x, w, act=ACT)
    monkeypatch.setattr(module, "exchanges", lambda: False)
    other = packed()
    assert torch.equal(ops.matmul(x, other, act=ACT), expected) and not other.quick
    assert _native.exchanges(torch.Tensor) and not _native.exchanges(int)
    with pytest.raises(ValueError, match="exchange API"):
        _native.Quick(int, w.handle, 4, 64)
