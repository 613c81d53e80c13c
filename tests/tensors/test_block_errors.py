"""Compiled errors of blocks against the readable ones, the same bits from every instruction set and number of threads."""

from __future__ import annotations

import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat, native
from anybit.tensors import block_errors, quantize
from anybit.tensors.block_errors import BlockErrors
from anybit.tensors.scale_search import importance_weights
from anybit.tensors.scales import range_parameters, tensor_factor, value_range

MODULE = native.module()
pytestmark = pytest.mark.skipif(MODULE is None, reason="the native module is not built (make native)")
ISAS = [] if MODULE is None else [name for name, _, present in MODULE.isas() if present]

SPECS = ["int4/g128", "int4/g128+z", "int3/g24", "int8/row", "int2/row+z", "ternary/g16", "bipolar1/g32", "nf4/g64", "mxfp4", "mxfp8",
         "nvfp4", "e4m3fn/row", "e2m3/g48:bf16", "posit8_0/g32", "int4n/g40:e5m2"]  # fmt: skip
SHAPES = [(9, 256), (21, 100), (3, 1700), (64, 17)]


def band_of(spec: str, shape: tuple[int, int], weighted: str) -> tuple[BlockErrors, torch.Tensor, torch.Tensor | None]:
    """A band of one chunk with several steps to try: whole and half the range, mirrored, and none at all in the first block."""
    fmt = TensorFormat.parse(spec)
    g = torch.Generator().manual_seed(shape[0])
    x = torch.randn(shape, generator=g) * torch.rand(shape[0], 1, generator=g)
    x[1] = 0
    given = {"": None, "columns": torch.rand(shape[1], generator=g), "all": torch.rand(shape, generator=g)}[weighted]
    weights = importance_weights(given, *shape, fmt)
    low, high = value_range(x, fmt)
    factor = tensor_factor(low, high, fmt)
    scales, zeros = range_parameters(low, high, fmt, factor, torch.tensor([1.0, 0.5, 0.27, -1.0, 1.0])[:, None, None])
    scales[-1, 0, 0] = 0
    return BlockErrors(x, weights, fmt, factor, [(0, shape[0])]), scales, zeros


def readable(band: BlockErrors, monkeypatch: pytest.MonkeyPatch) -> BlockErrors:
    with monkeypatch.context() as m:
        m.setattr(block_errors._NativeErrors, "cast", staticmethod(lambda matrix, fmt: None))
        return BlockErrors(band.matrix, band.weights, band.fmt, band.factor, band.band)


@pytest.mark.parametrize("weighted", ["", "columns", "all"])
@pytest.mark.parametrize("spec", SPECS)
def test_compiled_errors_are_the_readable_ones(spec: str, weighted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        band, scales, zeros = band_of(spec, shape, weighted)
        plain = readable(band, monkeypatch)
        assert band.native is not None and plain.native is None
        offsets = [None] * len(scales) if zeros is None else zeros
        for got, scale, zero in zip(band.of_each(scales, zeros), scales, offsets, strict=True):
            wanted = plain.of(scale, zero)
            assert torch.allclose(got, wanted, rtol=2e-5, atol=1e-6 * float(wanted.max()))
            assert torch.equal(band.of(scale, zero), got)
        if band.fmt.scale is not None and band.fmt.scale.bits == 8:
            continue  # neighbouring sums may be stored as different scales
        for scale, zero in zip(scales[:3], offsets[:3], strict=True):
            assert torch.allclose(band.closed_form(scale, zero), plain.closed_form(scale, zero), rtol=2e-3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", ISAS)
def test_isas_and_threads_give_the_same_bits(isa: str, threads: int) -> None:
    assert MODULE is not None
    for spec in ("int4/g128+z", "nvfp4", "nf4/g64", "int3/g24"):
        band, scales, zeros = band_of(spec, (80, 1700), "all")
        assert band.native is not None
        wanted = [band.of_each(scales, zeros), *band.native.projections(scales, zeros)]
        before = (MODULE.isa(), MODULE.threads())
        try:
            MODULE.set_isa(isa)
            MODULE.set_threads(threads)
            found = [band.of_each(scales, zeros), *band.native.projections(scales, zeros)]
        finally:
            MODULE.set_isa(before[0])
            MODULE.set_threads(before[1])
        assert all(map(torch.equal, found, wanted))


def test_the_search_errs_as_little_by_either_code(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(40, 512, generator=torch.Generator().manual_seed(1))
    for spec in ("int4/g128", "int3/g64+z", "nvfp4", "nf4/g64"):
        fmt = TensorFormat.parse(spec)
        compiled = quantize(x, fmt, "mse").dequantize()
        with monkeypatch.context() as m:
            m.setattr(block_errors._NativeErrors, "cast", staticmethod(lambda matrix, fmt: None))
            plain = quantize(x, fmt, "mse").dequantize()
        errors = [float((y - x).double().square().sum()) for y in (compiled, plain)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-5)


def test_halves_and_parts_of_larger_matrices_are_taken_too() -> None:
    x = torch.randn(64, 300, generator=torch.Generator().manual_seed(2))
    fmt = TensorFormat.parse("int4/g100")
    whole = quantize(x.to(torch.bfloat16), fmt, "mse")
    part = quantize(x.to(torch.bfloat16)[::2], fmt, "mse")
    assert torch.equal(part.codes, whole.codes[::2]) and torch.equal(part.scale, whole.scale[::2])


def test_a_number_that_is_none_is_refused() -> None:
    x = torch.randn(8, 256)
    x[3, 3] = float("nan")
    with pytest.raises(FormatError, match="NaN"):
        quantize(x, TensorFormat.parse("int4/g128"), "mse")
