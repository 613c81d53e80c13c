"""LayerCast against float64, and the tree bit for bit however the work is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anybit import ops
from anybit.formats import TensorFormat
from anybit.ops import invariant, native
from anybit.ops.invariant import LEAF, TreeWeight, invariant_matmul, layercast_matmul, partition, subtree
from anybit.tensors import quantize

MODULE = native.load()


def layer(k: int, n: int = 37, m: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(k)
    return torch.randn(m, k, generator=g), torch.randn(n, k, generator=g).bfloat16(), torch.randn(n, generator=g)


def threads_of(count: int):
    if MODULE is None:
        pytest.skip("the native module is not built (make native)")
    before = MODULE.threads()
    MODULE.set_threads(count)
    return before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_layercast_is_a_float32_product_of_16_bit_weights(dtype: torch.dtype) -> None:
    x, w, bias = layer(1000)
    w = w.to(dtype)
    exact = x.double() @ w.double().T + bias.double()
    size = x.double().abs() @ w.double().abs().T
    y = ops.matmul(x, w, bias, determinism="layercast")
    assert y.dtype == torch.float32
    assert ((y.double() - exact).abs() <= 5e-6 * size).all()
    assert torch.equal(layercast_matmul(x, ops.prepack(w), bias), y)
    if MODULE is not None:
        assert ops.prepack(w).nbytes <= 0.55 * w.numel() * 4 + 64 * w.shape[1]


@pytest.mark.parametrize("k", [1, 255, 256, 257, 512, 700, 1024, 1300, 2304])
def test_the_tree_does_not_depend_on_batch_threads_or_partition(k: int) -> None:
    x, w, bias = layer(k)
    tree = TreeWeight.of(w)
    assert tree.leaves == -(-k // LEAF)
    whole = invariant_matmul(x, tree, bias)
    for batch in (1, 2, 3, 8, 64):
        pieces = [invariant_matmul(x[a : a + batch], tree, bias) for a in range(0, 64, batch)]
        assert torch.equal(torch.cat(pieces), whole), batch
    for parts in (2, 4, 8, 16):
        assert torch.equal(invariant_matmul(x, tree, bias, parts), whole), parts
    for count in (1, 2, 3):
        before = threads_of(count)
        try:
            assert torch.equal(invariant_matmul(x, tree, bias), whole), count
        finally:
            MODULE.set_threads(before)
    # Columns of the weight split over ranks need no reduction at all.
    halves = [invariant_matmul(x, w[:20], bias[:20]), invariant_matmul(x, w[20:], bias[20:])]
    assert torch.equal(torch.cat(halves, 1), whole)
    assert torch.equal(ops.matmul(x, w, bias, determinism="invariant"), whole)
    assert torch.equal(ops.matmul(x, ops.prepack(w), bias, determinism="invariant"), whole)
    assert torch.equal(ops.matmul(x, w, bias, determinism="invariant", out_dtype=torch.bfloat16), whole.bfloat16())
    assert (whole.double() - (x.double() @ w.double().T + bias.double())).abs().max() < 1e-3


def test_the_tree_written_out() -> None:
    """Five leaves: ((l0 + l1) + (l2 + l3)) + l4, where the order shows in float32."""
    x, w, _ = layer(4 * LEAF + 9, n=5, m=3)
    tree = TreeWeight.of(w)
    leaf = [invariant.partial_product(x, tree, range(i, i + 1)).numpy() for i in range(5)]
    columns = [slice(i * LEAF, (i + 1) * LEAF) for i in range(5)]
    for sums, cut in zip(leaf, columns, strict=True):  # a leaf is the plain product of its columns
        assert np.array_equal(sums, layercast_matmul(x[:, cut], w[:, cut].contiguous()).numpy())
    expected = ((leaf[0] + leaf[1]) + (leaf[2] + leaf[3])) + leaf[4]
    assert np.array_equal(invariant_matmul(x, tree).numpy(), expected)
    other = (((leaf[0] + leaf[1]) + leaf[2]) + leaf[3]) + leaf[4]
    assert not np.array_equal(expected, other)


def test_nodes_without_leaves_are_skipped_not_added() -> None:
    minus = torch.tensor([-0.0])
    assert subtree([minus, None, None, None]).signbit().item()
    assert subtree([None, None]) is None
    assert [list(r) for r in partition(5, 4)] == [[0, 1], [2, 3], [4], []]
    assert [list(r) for r in partition(2, 4)] == [[0], [1], [], []]
    with pytest.raises(ValueError, match="a power of two of parts; got 3"):
        partition(5, 3)
    with pytest.raises(ValueError, match="a power of two of nodes; got 3"):
        subtree([minus] * 3)


@pytest.mark.parametrize("leaves", range(1, 20))
def test_trees_of_every_number_of_leaves(leaves: int) -> None:
    """The counter that builds the tree in the kernel against the tree written as pairs of neighbours."""
    x, w, _ = layer(leaves * LEAF - 7, n=70, m=5)
    tree = TreeWeight.of(w)
    nodes = [invariant.partial_product(x, tree, range(i, i + 1)) for i in range(leaves)]
    while len(nodes) > 1:
        pairs = [nodes[i] + nodes[i + 1] for i in range(0, len(nodes) - 1, 2)]
        nodes = pairs + nodes[2 * len(pairs) :]
    assert torch.equal(invariant_matmul(x, tree), nodes[0])
    assert torch.equal(invariant_matmul(x[3:4], tree), nodes[0][3:4])


@pytest.mark.parametrize(
    "spec", ["fp32", "int4/g64", "int8/g128", "nf4/g32", "int3/row", "e4m3fn/g96", "int4/g96", "uint4/g512+z"]
)
def test_quantized_and_float32_weights_have_a_tree_too(spec: str) -> None:
    x, w, _ = layer(1344, m=9)
    weight = w.float() if spec == "fp32" else quantize(w.float(), TensorFormat.parse(spec))
    whole = ops.matmul(x, weight, determinism="invariant")
    assert torch.equal(torch.cat([invariant_matmul(row[None], weight) for row in x]), whole)
    for parts in (2, 8):
        assert torch.equal(invariant_matmul(x, weight, parts=parts), whole)
    dense = weight if isinstance(weight, torch.Tensor) else weight.dequantize()
    assert torch.allclose(whole, x @ dense.T, atol=1e-3)


def test_all_instruction_sets_have_the_same_tree() -> None:
    if MODULE is None:
        pytest.skip("the native module is not built (make native)")
    x, w, _ = layer(1300, m=70)
    before, results = MODULE.isa(), []
    try:
        for name, _, present in MODULE.isas():
            if present:
                MODULE.set_isa(name)
                results.append([invariant_matmul(x[:m], w) for m in (1, 2, 70)])
    finally:
        MODULE.set_isa(before)
    assert all(torch.equal(a, b) for found in results for a, b in zip(found, results[0], strict=True))


def test_without_the_native_module_rows_are_multiplied_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: None)
    x, w, bias = layer(600)
    whole = invariant_matmul(x, w, bias)
    assert torch.equal(torch.cat([invariant_matmul(row[None], w, bias) for row in x]), whole)


def test_what_is_refused() -> None:
    x, w, _ = layer(64)
    with pytest.raises(ValueError, match=r"bfloat16 or float16; got torch\.float32"):
        layercast_matmul(x, w.float())
    with pytest.raises(ValueError, match="bf16 or fp16; got int8/row"):
        ops.matmul(x, quantize(w.float(), TensorFormat.parse("int8/row")), determinism="layercast")
    with pytest.raises(ValueError, match="determinism is one of none, layercast, invariant; got 'yes'"):
        ops.matmul(x, w, determinism="yes")
    with pytest.raises(ValueError, match="leave determinism at 'none'"):
        ops.matmul(x, w, determinism="invariant", multiply="lmul_add")
    with pytest.raises(ValueError, match="x has 64 columns, the weight 63"):
        invariant_matmul(x, w[:, :63])
    if MODULE is not None:
        odd = ops.prepack(quantize(torch.randn(4, 192), TensorFormat.parse("int4/g96")))
        with pytest.raises(
            ValueError, match="a packed int4/g96 do not divide the 256 columns of a leaf; give the QTensor"
        ):
            ops.matmul(x[:, :1].expand(64, 192), odd, determinism="invariant")
        with pytest.raises(ValueError, match="got a packed fp32"):
            layercast_matmul(x, ops.prepack(w.float()))
