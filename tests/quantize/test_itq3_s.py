"""Three bits in a rotated basis: signal to noise of the digest's kinds of weights, and that the rotation cancels."""

import math

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.quantize import gptq, itq3_s, rtn
from anybit.quantize.statistics import Statistics
from anybit.transforms.hadamard import Rotation


def snr(weight: torch.Tensor, rotate: bool, spec: str) -> float:
    turn = Rotation(256, 0)
    w = turn.forward(weight) if rotate else weight
    got = rtn.quantize(w, TensorFormat.parse(spec)).qtensor.dequantize()
    got = turn.inverse(got) if rotate else got
    return 10 * math.log10(float(weight.square().sum() / (weight - got).square().sum()))


def weights(kind: str) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(1000, 256, generator=g)
    if kind == "normal":
        return normal
    if kind == "laplace":
        return torch.distributions.Laplace(0, 1).icdf(torch.rand(1000, 256, generator=g).clamp(1e-6, 1 - 1e-6))
    outliers = normal.clone()
    outliers[:, [17, 200]] *= 15
    return outliers


@pytest.mark.parametrize(
    ("kind", "gain", "reached"),
    [("normal", (-0.2, 0.2), 14.8), ("laplace", (1.5, 3.5), 14.8), ("outliers", (6, 14), 15.7)],
)
def test_rotation_pays_on_heavy_tails_only(kind: str, gain: tuple[float, float], reached: float) -> None:
    """Lloyd-Max with 8 levels has 14.6 dB on normal numbers; rotation brings other distributions there, two outliers a little beyond."""
    w = weights(kind)
    plain, rotated = snr(w, False, itq3_s.FORMAT), snr(w, True, itq3_s.FORMAT)
    assert gain[0] < rotated - plain < gain[1]
    assert rotated == pytest.approx(reached, abs=0.3)


def test_the_levels_are_those_of_lloyd_and_max() -> None:
    """Each is the mean of the normal numbers nearest to it: a fixed point of Lloyd's iteration, by numeric integration."""
    levels = torch.tensor([-x for x in reversed(itq3_s.LLOYD_MAX)] + list(itq3_s.LLOYD_MAX), dtype=torch.float64)
    x = torch.linspace(-8, 8, 400001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2)
    cell = torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)
    means = torch.stack([(x * density)[cell == i].sum() / density[cell == i].sum() for i in range(8)])
    torch.testing.assert_close(means, levels, atol=5e-4, rtol=0)


def test_errors_in_the_rotated_basis_are_errors_of_the_product() -> None:
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(300, 256, generator=g), torch.randn(24, 256, generator=g)
    turn, stats = Rotation(256, 3), Statistics(256)
    stats.add(turn.forward(x))
    done = itq3_s.quantize(turn.forward(w), TensorFormat.parse(itq3_s.FORMAT), stats)
    y = turn.forward(x) @ done.qtensor.dequantize().T
    other = x @ turn.inverse(done.qtensor.dequantize()).T
    assert (y - other).norm() < 1e-5 * y.norm()
    error = float((y - x @ w.T).square().sum() / (x @ w.T).square().sum())
    assert error == pytest.approx(done.report.relative_error, rel=1e-3)
    fmt = TensorFormat.parse(itq3_s.FORMAT)
    alone = gptq.quantize(turn.forward(w), fmt, stats)
    plain = itq3_s.quantize(turn.forward(w), fmt, stats, itq3_s.Options(sweeps=0))
    assert torch.equal(alone.qtensor.codes, plain.qtensor.codes)
    assert done.report.method == "itq3_s" and done.report.relative_error < plain.report.relative_error


def test_a_block_of_zeros_stays_exactly_zero() -> None:
    """No level is zero, so its scale is."""
    turn, fmt = Rotation(256, 0), TensorFormat.parse(itq3_s.FORMAT)
    w = torch.randn(6, 512, generator=torch.Generator().manual_seed(0))
    w[2, 256:], w[4] = 0.0, 0.0
    x = torch.randn(2000, 512, generator=torch.Generator().manual_seed(1))
    stats = Statistics(512)
    stats.add(turn.forward(x))
    q = itq3_s.quantize(turn.forward(w), fmt, stats).qtensor
    back = turn.inverse(q.dequantize())
    assert bool((back[2, 256:] == 0).all()) and bool((back[4] == 0).all()) and bool((back[0] != 0).all())
    assert float(q.scales()[4].abs().max()) == 0.0
