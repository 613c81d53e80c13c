"""What must hold for quantizing.py; the oracle rounds one number at a time, in float64, against the scale as stored."""

from __future__ import annotations

import subprocess
import sys
from math import prod

import numpy as np
import pytest
import torch

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.tensors import QTensor, blocks, encode, quantize

parse = TensorFormat.parse
SPECS = [
    "int4/g8", "int8/row", "int3/g8+z", "int2/tensor", "uint4/b4x8+z", "int4/b*x1", "mxfp4", "mxfp6", "mxfp8", "nvfp4", "nf4/g16",
    "ternary/row", "bipolar3/g8:bf16", "e5m2/tensor", "dfp16", "int16/g8:fp32", "int1/g8", "int7n/g8:fp32", "int4/g8:e4m3fn+z+t",
]  # fmt: skip


def sample(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spread(parameters: np.ndarray, q: QTensor) -> np.ndarray:
    """Parameters of blocks -> of elements."""
    rows, cols = q.shape[0], prod(q.shape[1:])
    height, width = q.format.block[0] or rows, q.format.block[1] or cols
    return parameters[np.arange(rows)[:, None] // height, np.arange(cols)[None] // width]


@pytest.mark.parametrize("spec", SPECS)
def test_every_element_is_nearest_to_what_it_stands_for(spec: str) -> None:
    x = sample(9, 37)
    q = quantize(x, parse(spec))
    scale = spread(q.scales().double().numpy(), q)
    zeros = q.zeros()
    zero = 0.0 if zeros is None else spread(zeros.double().numpy(), q)
    grid = np.sort(q.format.element.values)
    choices = (grid - np.asarray(zero)[..., None]) * scale[..., None]
    best = np.abs(choices - x.double().numpy()[..., None]).min(-1)
    wrong = np.abs(q.dequantize().double().numpy() - x.double().numpy())
    # Float32 quotients and products: a few units in the last place of the values.
    slack = 4 * 2.0**-24 * (np.abs(x.numpy()) + np.abs(np.asarray(zero) * scale))
    assert np.all(wrong <= best + slack)


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7, 8])
def test_the_error_of_integers_is_at_most_half_a_step(bits: int) -> None:
    x = sample(40, 100)
    q = quantize(x, parse(f"int{bits}/row"))
    wrong = (q.dequantize() - x).abs()
    assert (wrong <= q.scales() / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("rule", ["absmax", "mse"])
def test_the_result_does_not_depend_on_the_chunks(spec: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = sample(23, 41)
    whole = quantize(x, parse(spec), rule)  # type: ignore[arg-type]
    monkeypatch.setattr(blocks, "CHUNK", 64)
    cut = quantize(x, parse(spec), rule)  # type: ignore[arg-type]
    if rule == "absmax":
        assert all(torch.equal(a, b) for a, b in zip(whole.tensors().values(), cut.tensors().values(), strict=True))
    # Sums over a block cut in pieces round differently, so a near tie of two scales may fall either way.
    worse = (cut.dequantize() - x).norm() / (whole.dequantize() - x).norm()
    assert 1 - 1e-3 < float(worse) < 1 + 1e-3
    assert torch.equal(
        cut.dequantize(), QTensor(**cut.tensors() | missing(cut), shape=cut.shape, format=cut.format).dequantize()
    )


def missing(q: QTensor) -> dict[str, None]:
    return {name: None for name in ("scale", "zero", "tensor_scale") if name not in q.tensors()}


@pytest.mark.parametrize("spec", SPECS)
def test_blocks_are_independent_of_their_surroundings(spec: str) -> None:
    fmt = parse(spec)
    if fmt.tensor_scale or 0 in fmt.block:
        fmt = parse(f"{fmt.element}/b4x8")
    x = sample(8, 16)
    width, height = fmt.block[1], fmt.block[0]
    part = quantize(x[-height:, -(16 % width or min(width, 16)) :].contiguous(), fmt).dequantize()
    assert torch.equal(part, quantize(x, fmt).dequantize()[-height:, -(16 % width or min(width, 16)) :])


def test_any_floating_type_and_shape_in_and_the_input_unchanged() -> None:
    x = sample(6, 4, 3, 3).bfloat16()
    before = x.clone()
    q = quantize(x, parse("int4/g16+z"), "mse")
    assert torch.equal(x, before) and q.shape == (6, 4, 3, 3) and q.dequantize().shape == x.shape
    assert torch.equal(q.codes, quantize(x.float(), parse("int4/g16+z"), "mse").codes)
    assert torch.equal(q.codes, quantize(x.double(), parse("int4/g16+z"), "mse").codes)
    assert torch.equal(q.codes, quantize(x.permute(3, 1, 2, 0).permute(3, 1, 2, 0), parse("int4/g16+z"), "mse").codes)
    with_grad = torch.nn.Parameter(x.float())
    assert not quantize(with_grad, parse("int4/row")).scales().requires_grad


def test_unscaled_formats_store_rounded_numbers() -> None:
    x = sample(3, 5)
    assert torch.equal(quantize(x, parse("bf16")).dequantize(), x.bfloat16().float())
    assert torch.equal(quantize(x, parse("fp32")).dequantize(), x)
    assert torch.equal(quantize(x, parse("e4m3fn")).dequantize(), x.to(torch.float8_e4m3fn).float())
    assert quantize(torch.tensor([[float("inf")]]), parse("e4m3fn")).dequantize().tolist() == [[448.0]]


def test_stochastic_rounding_is_reproducible_unbiased_and_independent_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = sample(64, 64)
    fmt = parse("int4/g10")
    first = quantize(x, fmt, mode="stochastic", key=5)
    monkeypatch.setattr(blocks, "CHUNK", 200)
    assert torch.equal(first.codes, quantize(x, fmt, mode="stochastic", key=5).codes)
    assert not torch.equal(first.codes, quantize(x, fmt, mode="stochastic", key=6).codes)
    runs = 64
    mean = torch.stack([quantize(x, fmt, mode="stochastic", key=k).dequantize() for k in range(runs)]).mean(0)
    # Each element is off by at most a step with variance at most 1/4 step^2; the sum over 4096 elements is near normal.
    step = encode(x, fmt, *_scales(x, fmt)).scales().repeat_interleave(10, 1)[:, :64]
    total = ((mean - x) / step).sum()
    assert abs(float(total)) < 5 * 0.5 * (64 * 64 / runs) ** 0.5
    with pytest.raises(FormatError, match="needs a key"):
        quantize(x, fmt, mode="stochastic")


def _scales(x: torch.Tensor, fmt: TensorFormat) -> tuple[torch.Tensor]:
    return (quantize(x, fmt).scales(),)


def test_a_code_is_encode_of_x_over_scale_plus_zero() -> None:
    x = torch.tensor([[1.0, -3.0, 0.6, 100.0]])
    q = encode(x, parse("uint4/row+z"), torch.tensor([[0.5]]), torch.tensor([[8.0]]))
    assert q.unpacked().tolist() == [[10, 2, 9, 15]]
    assert q.dequantize().tolist() == [[1.0, -3.0, 0.5, 3.5]]


def test_what_is_no_tensor_or_format_is_refused() -> None:
    with pytest.raises(FormatError, match="takes torch tensors; got ndarray"):
        quantize(torch.ones(2, 8).numpy(), parse("int4/g8"))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"expected a TensorFormat, as .* gives; got 'int4/g8'"):
        quantize(torch.ones(2, 8), "int4/g8")  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    with pytest.raises(FormatError, match="floating tensors of one or more dimensions; got int64"):
        quantize(torch.ones(2, 2, dtype=torch.int64), parse("int4/row"))
    with pytest.raises(FormatError, match=r"got float32 of shape \(\)"):
        quantize(torch.tensor(1.0), parse("int4/row"))
    with pytest.raises(FormatError, match="encoding to int4/row needs scale"):
        encode(torch.ones(2, 2), parse("int4/row"))
    with pytest.raises(FormatError, match="needs zero"):
        encode(torch.ones(2, 2), parse("int4/row+z"), torch.ones(2, 1))
    with pytest.raises(FormatError, match="needs tensor_scale"):
        encode(torch.ones(2, 16), parse("nvfp4"), torch.ones(2, 1))
    with pytest.raises(FormatError, match=r"the scale given for int4/g8 .* \[2, 2\]; got \[2, 1\]"):
        encode(torch.ones(2, 16), parse("int4/g8"), torch.ones(2, 1))
    with pytest.raises(FormatError, match="holds NaN"):
        encode(torch.full((1, 2), float("nan")), parse("int4/row"), torch.ones(1, 1))


PEAK = """
import resource, torch
from anybit.formats import TensorFormat
from anybit.tensors import quantize
torch.set_num_threads(1)
x = torch.zeros(2048, 4096, dtype=torch.bfloat16).normal_()
quantize(x[:64], TensorFormat.parse("{spec}"), "{rule}")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
q = quantize(x, TensorFormat.parse("{spec}"), "{rule}")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 - q.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
@pytest.mark.parametrize(
    ("spec", "rule"), [("int4/g128", "absmax"), ("int3/g128+z", "mse"), ("int8/tensor", "absmax"), ("mxfp4", "absmax")]
)
def test_beside_the_result_memory_holds_chunks_only(spec: str, rule: str) -> None:
    code = PEAK.format(spec=spec, rule=rule)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The float32 copy of the whole matrix would be 32 MiB, the bound without tables is 16; a dozen float32 tables of scales may be held.
    tables = 12 * 4 * prod(parse(spec).grid((2048, 4096)))
    assert int(run.stdout) < 16 * 4 * blocks.CHUNK + tables
