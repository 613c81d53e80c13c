"""The pieces of the experiment against what is known of them; the whole quick run is slow."""

import math

import pytest
import torch

from anybit.formats import TensorFormat
from anybit.ops import native
from anybit.reproduce import itq3s
from anybit.reproduce.experiment import Context
from anybit.tensors import quantize


@pytest.mark.parametrize(("kind", "kurtosis"), [("normal", (2.9, 3.1)), ("laplace", (5.5, 6.5)), ("student", (8, 9e9))])
def test_weights_have_the_tails_they_are_named_for(kind, kurtosis):
    w = itq3s._weights(kind, 500).double()
    assert kurtosis[0] < float(w.pow(4).mean() / w.square().mean() ** 2) < kurtosis[1]


def test_signal_to_noise_of_normal_weights_is_that_of_lloyd_and_max():
    found = itq3s._snr("normal", 300)
    assert found["levels"] == pytest.approx(14.7, abs=0.3) == found["rotated"]
    assert found["ternary"] < found["absmax"] < found["zero"] < found["levels"]


def test_rotations_cancel():
    found = itq3s._same()
    assert 0 <= found["error"] < 1e-5 and 0 < found["product"] < 1e-5


def test_weights_rotated_back_give_the_product_of_rotated_activations():
    x, w = torch.randn(3, 512), quantize(torch.randn(100, 512), TensorFormat.parse(itq3s.FORMAT))
    wanted = itq3s.TURN.forward(x) @ w.dequantize().T
    torch.testing.assert_close(itq3s._loaded(x, w.dequantize()), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(native.load() is None, reason="the native module is not built (make native)")
def test_a_small_row(monkeypatch, tmp_path):
    monkeypatch.setattr(itq3s, "EVICT", 0)
    found = itq3s._speed(Context(tmp_path, tmp_path), 256, 1)
    assert all(math.isfinite(value) and value > 0 for value in found.values())


@pytest.mark.slow
def test_the_quick_run(tmp_path, shared_data):
    figures = itq3s.run(Context(shared_data, tmp_path), quick=True)
    assert figures["tiny"]["rotated"]["kl"] < figures["tiny"]["zero"]["kl"]
