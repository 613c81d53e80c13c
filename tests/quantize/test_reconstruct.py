"""The trainer against exhaustive search on layers small enough, and what it promises: no worse than its start, the same bits again."""

import itertools

import pytest
import torch

from anybit import tensors
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import gradient_ptq
from anybit.quantize.learned import LearnedWeight
from anybit.quantize.reconstruct import Settings, reconstruct

SPECS = ["int3/g8", "int4/g8+z", "nf4/g16", "int2/row", "mxfp4", "nvfp4", "int3/g8:e4m3fn+t", "int4/b4x16", "e4m3fn"]


def layer(rows: int = 4, columns: int = 8, windows: int = 8, tokens: int = 60, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=g) / columns**0.5
    x = torch.randn(windows, tokens, columns, generator=g) @ mix
    return torch.randn(rows, columns, generator=g), x


def train(w: torch.Tensor, x: torch.Tensor, spec: str, settings: Settings, rule: str = "mse"):
    start = tensors.quantize(w, TensorFormat.parse(spec), rule)
    return start, reconstruct(
        {"w": (w, start)},
        lambda weights, windows: (x[list(windows)] @ weights["w"].T).flatten(0, 1),
        lambda windows: (x[list(windows)] @ w.T).flatten(0, 1),
        len(x),
        settings,
    )


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_learned_starts_at_the_given_codes(spec: str) -> None:
    w = torch.randn(8, 32)
    start = tensors.quantize(w, TensorFormat.parse(spec))
    learned = LearnedWeight(w, start)
    torch.testing.assert_close(learned.value().detach(), start.dequantize(), rtol=1e-6, atol=1e-7)
    again = learned.harden()
    assert torch.equal(again.dequantize(), start.dequantize()) and again.format == start.format


@pytest.mark.parametrize("spec", SPECS)
def test_the_result_is_on_the_grid_and_no_worse_where_it_is_held_out(spec: str) -> None:
    w, x = layer(rows=8, columns=32, tokens=120)
    start, done = train(w, x, spec, Settings(steps=100, rate=0.003))
    assert done.after <= done.before or not done.kept
    q = done.weights["w"]
    assert q.format == start.format and q.nbytes == start.nbytes
    held = x[-1:]  # an eighth of 8 windows
    error = float((held @ (q.dequantize() - w).T).square().sum() / (held @ w.T).square().sum())
    assert error == pytest.approx(min(done.before, done.after), rel=1e-3)
    if spec not in ("mxfp4", "e4m3fn"):  # power-of-two scales, and fine ones, leave little
        assert done.kept and done.after < 0.95 * done.before


def test_no_steps_leave_the_start() -> None:
    w, x = layer()
    start, done = train(w, x, "int3/g8", Settings(steps=0))
    assert torch.equal(done.weights["w"].codes, start.codes) and not done.kept and done.before == done.after


def test_roundings_come_near_the_best_of_all_of_them() -> None:
    """One output, 8 inputs, scales fixed: of all 2^8 choices of floor and ceiling the trainer finds one of the best, in most draws."""
    near = 0
    for seed in range(10):
        w, x = layer(rows=1, seed=seed, windows=1, tokens=200)
        fmt = TensorFormat.parse("int3/row")
        start = tensors.quantize(w, fmt)
        scale = float(start.scales())
        low = torch.floor(w / scale).clamp(-4, 3)
        best = min(
            float((x @ ((low + torch.tensor(up)).clamp(-4, 3) * scale - w).T).square().sum())
            for up in itertools.product((0.0, 1.0), repeat=8)
        )
        total = float((x @ w.T).square().sum())
        settings = Settings(steps=600, rate=0.02, scales=False, batch=1, held_out=0.0)
        _, done = train(w, x, "int3/row", settings, "absmax")
        near += min(done.before, done.after) <= 1.2 * best / total
    assert near >= 8


@pytest.mark.parametrize("optimizer", ["adam", "sign", "sgd"])
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_every_optimizer_lowers_every_loss(optimizer: str, loss: str) -> None:
    w, x = layer(rows=8, columns=32)
    rates = {"adam": (0.003, 0.001), "sign": (0.003, 0.001), "sgd": (0.3, 0.01)}[optimizer]
    settings = Settings(steps=100, rate=rates[0], scale_rate=rates[1], optimizer=optimizer, loss=loss)  # type: ignore[arg-type]
    _, done = train(w, x, "int2/g8", settings)
    assert done.kept and done.after < done.before


def test_scales_alone_and_roundings_alone() -> None:
    w, x = layer(rows=8, columns=32)
    start, done = train(w, x, "int2/g8:fp32", Settings(steps=80, rounding=False, scale_rate=0.01))
    q = done.weights["w"]
    assert torch.equal(q.codes, start.codes) and not torch.equal(q.scale, start.scale) and done.kept
    start, done = train(w, x, "int2/g8:fp32", Settings(steps=80, scales=False))
    q = done.weights["w"]
    assert torch.equal(q.scale, start.scale) and not torch.equal(q.codes, start.codes) and done.kept


def test_gradients_pass_roundings_straight_through() -> None:
    w = torch.randn(2, 8)
    learned = LearnedWeight(w, tensors.quantize(w, TensorFormat.parse("int4/g8:fp32")))
    learned.value().sum().backward()
    scales = learned._start.scales()
    torch.testing.assert_close(learned.offset.grad, scales.expand(2, 8))
    codes = learned._start.dequantize()
    torch.testing.assert_close(learned.scales.stretch.grad, codes.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_the_same_bits_again_and_others_with_another_seed() -> None:
    w, x = layer(rows=8, columns=32, windows=16)
    results = [
        train(w, x, "int3/g8", Settings(steps=40, batch=2, rate=0.01, seed=s))[1].weights["w"] for s in (0, 0, 1)
    ]
    assert torch.equal(results[0].codes, results[1].codes) and torch.equal(results[0].scale, results[1].scale)
    assert not torch.equal(results[0].codes, results[2].codes)


def test_divergence_of_logits_is_what_torch_says_and_falls() -> None:
    g = torch.Generator().manual_seed(3)
    w, x = torch.randn(16, 32, generator=g), torch.randn(8, 60, 32, generator=g) / 3
    start, done = train(w, x, "int3/g8", Settings(steps=100, rate=0.002, loss="kl"))
    held = x[-1]
    got, wanted = (held @ q.T for q in (start.dequantize(), w))
    far = torch.nn.functional.kl_div(
        got.log_softmax(-1), wanted.log_softmax(-1), reduction="sum", log_target=True
    ) / len(held)
    assert done.before == pytest.approx(float(far), rel=1e-4)
    assert done.kept and done.after < 0.95 * done.before


def test_progress_is_told() -> None:
    w, x = layer()
    start, told = tensors.quantize(w, TensorFormat.parse("int3/g8")), []
    reconstruct(
        {"w": (w, start)},
        lambda p, i: x[list(i)] @ p["w"].T,
        lambda i: x[list(i)] @ w.T,
        8,
        Settings(4),
        told=told.append,
    )
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_a_harmful_result_is_thrown_away() -> None:
    w, x = layer(rows=8, columns=32)
    start, done = train(w, x, "int4/g8", Settings(steps=30, rate=5.0, scale_rate=1.0))
    assert not done.kept and torch.equal(done.weights["w"].codes, start.codes)


def test_refusals() -> None:
    w, x = layer()
    x[0, 0, 0] = float("nan")
    with pytest.raises(RecipeError, match="NaN or infinite"):
        train(w, x, "int4/g8", Settings(held_out=0.0))
    for wrong in ({"steps": -1}, {"batch": 0}, {"rate": -1.0}, {"held_out": 1.0}):
        with pytest.raises(ValueError):
            Settings(**wrong)
    for wrong in ({"start": "best"}, {"optimizer": "lion"}, {"loss": "kl"}, {"steps": -3}):
        with pytest.raises(ValueError):
            gradient_ptq.Options(**wrong)
