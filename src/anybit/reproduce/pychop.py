"""Pychop (repository inEXASCALE/pychop): emulated formats against arithmetic that other libraries and the processor do have, on real data.

Oracles.  float32 patterns spread over the whole line, rounded to binary16 by numpy and to bfloat16, E5M2 and E4M3 by torch; the directed
modes by stepping from numpy's nearest binary16 to its neighbour; stochastic rounding by its mean.  Where arithmetic itself is emulated
(every result of an LU factorization rounded), numpy computes the same factorization in its own float16: the bits must be equal.
Numerical method.  Iterative refinement (Carson & Higham, "Accelerating the solution of linear systems by iterative refinement in three
precisions", SIAM J. Sci. Comput., 2018): factors in few bits, residuals in float64, on normal equations of CIFAR-10 pixels.
Network.  ResNet-20 with weights, inputs and outputs of every layer rounded, in each rounding mode.
Pychop itself is measured beside ours where it is installed; no check depends on it.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anybit import formats, tensors
from anybit.formats import Mode, StochasticKey, TensorFormat
from anybit.formats.compat.pychop import RMODES, Chop, Chopf
from anybit.reproduce.experiment import Check, Context, Experiment
from anybit.zoo.images import images
from anybit.zoo.networks import NETWORKS, accuracy, load

Array = NDArray[Any]
TORCH_FORMATS = {"bf16": torch.bfloat16, "e5m2": torch.float8_e5m2, "e4m3fn": torch.float8_e4m3fn}
MODES: Mapping[str, int] = {"nearest": 1, "stochastic": 5, "zero": 4, "up": 2, "down": 3}
"""label -> Pychop's rmode."""

NETWORK_FORMATS = {"e4m3": (4, 3), "e5m2": (5, 2)}
"""label -> exponent and fraction bits, IEEE-like as Pychop's q43 and q52."""


def run(context: Context, quick: bool) -> Mapping[str, Any]:
    """The figures; quick takes fewer patterns and 200 images in place of 1 000."""
    context.progress("rounding", 0, 3)
    patterns = _patterns(200_003 if quick else 4_000_037)
    stem = "cifar10/test_first1000.npz"
    x, y = images(context.file(stem))
    count = 200 if quick else 1000
    net = load(NETWORKS["resnet20"], context.file("resnet_cifar/resnet20.safetensors"))
    return {
        "patterns": len(patterns),
        "mismatches": _mismatches(patterns),
        "stochastic": _stochastic(200_000),
        "blocks": _block_mismatches(net, 20 if quick else 200),
        "jax": int(importlib.util.find_spec("jax") is not None),
        "libraries": _library_mismatches(patterns[:: max(1, len(patterns) // 50_000)]),
        "lu": _lu_mismatches(x, 64 if quick else 160),
        "refinement": _refinement(x, 64 if quick else 128),
        "network": _network(context, net, x[:count], y[:count]),
        "pychop": _itself(patterns[:: max(1, len(patterns) // 200_000)]),
    }


def _patterns(count: int) -> Array:
    """About `count` finite float32 numbers at even distances of their bit patterns, with the ties of binary16 among them."""
    bits = np.linspace(0, 2**32 - 1, count).astype(np.uint64).astype(np.uint32)
    halves = np.arange(0, 0x7BFF, 7, dtype=np.uint16).view(np.float16).astype(np.float32)
    after = np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float32)
    ties = (halves + after) / 2  # exact: float32 has 13 more bits
    edges = np.array([0.0, 65504, 65519.996, 65520, 65536, 131071, 2.0**-25, 2.0**-24, 1e-40], np.float32)
    special = np.concatenate([ties, edges])
    found = np.concatenate([bits.view(np.float32), special, -special])
    return found[np.isfinite(found)]


def _differ(got: Array, wanted: Array) -> int:
    """Numbers of other bits; both hold no NaN, or NaN at the same places."""
    same = (got == wanted) & (np.signbit(got) == np.signbit(wanted))
    return int((~(same | (np.isnan(got) & np.isnan(wanted)))).sum())


def _directed(x: Array) -> dict[str, Array]:
    """binary16 neighbours of x found by steps from numpy's nearest one."""
    with np.errstate(over="ignore"):
        near = x.astype(np.float16)
        below = np.where(near.astype(np.float32) > x, np.nextafter(near, np.float16(-np.inf)), near)
        above = np.where(near.astype(np.float32) < x, np.nextafter(near, np.float16(np.inf)), near)
    toward = np.where(x > 0, below, above)
    pairs = {"zero": toward, "down": below, "up": above}
    # A zero has the sign of what was rounded.
    return {
        name: np.copysign(np.abs(v), x).astype(np.float32) if name == "zero" else _signed(v, x)
        for name, v in pairs.items()
    }


def _signed(value: Array, x: Array) -> Array:
    wide = value.astype(np.float32)
    return np.where(wide == 0, np.copysign(wide, x), wide).astype(np.float32)


def _mismatches(x: Array) -> dict[str, int]:
    """Numbers that are rounded to other bits than the oracle's, by format and mode."""
    with np.errstate(over="ignore"):
        wrong = {"fp16": _differ(Chop(5, 10)(x), x.astype(np.float16).astype(np.float32))}
    tensor = torch.from_numpy(x)
    for name, dtype in TORCH_FORMATS.items():
        fmt = formats.get(name)
        # Beyond the largest value of E4M3, versions of torch give NaN or that value.
        within = slice(None) if fmt.has_inf else np.abs(x) <= fmt.max
        got, wanted = fmt.round(x, overflow="ieee"), tensor.to(dtype).float().numpy()
        wrong[name] = _differ(got[within], wanted[within])
    for label, wanted in _directed(x).items():
        wrong[f"fp16_{label}"] = _differ(Chop(5, 10, rmode=MODES[label])(x), wanted)
    fixed = np.clip(np.rint(x.astype(np.float64) * 16), -128, 127) / 16
    wrong["fixed4_4"] = int((Chopf(4, 4)(x) != fixed).sum())
    wrong["all"] = sum(wrong.values())
    return wrong


def _stochastic(draws: int) -> dict[str, float]:
    """How far means of stochastic rounding are from the numbers, in standard errors; and whether numbers on the grid moved."""
    fmt, worst = formats.get("fp16"), 0.0
    for i, value in enumerate((1.0001, -3.14159, 2e-6, 1000.3)):
        drawn = fmt.round(np.full(draws, value), "stochastic", StochasticKey(i))
        worst = max(worst, abs(drawn.mean() - value) / (drawn.std() / np.sqrt(draws)))
    grid = fmt.values
    moved = sum(int((fmt.round(grid, "stochastic", StochasticKey(i)) != grid).sum()) for i in range(3))
    return {"deviations": float(worst), "moved": moved}


def _block_mismatches(net: nn.Module, rows: int) -> int:
    """MXFP4 values of ResNet-20's weights that are not a nearest E2M1 value times the scale of OCP Microscaling, searched in float64."""
    fmt, grid = TensorFormat.parse("mxfp4"), np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    grid = np.concatenate([-grid[:0:-1], grid])
    wrong = 0
    for weight in (p for p in net.parameters() if p.ndim == 4):
        matrix = weight.detach().reshape(weight.shape[0], -1)[:rows]
        got = tensors.quantize(matrix, fmt).dequantize().double().numpy()
        for row, found in zip(matrix.double().numpy(), got, strict=True):
            for start in range(0, len(row), 32):
                block, value = row[start : start + 32], found[start : start + 32]
                scale = 2.0 ** (np.floor(np.log2(np.abs(block).max())) - 2)
                best = np.abs(np.clip(block / scale, -6, 6)[:, None] - grid).min(1)
                chosen = np.abs(np.clip(block / scale, -6, 6) - value / scale)
                on_grid = (np.abs(value[:, None] / scale - grid) == 0).any(1)
                wrong += int((~on_grid | (chosen > best)).sum())
    return wrong


def _library_mismatches(x: Array) -> int:
    """Numbers that torch (and JAX where it is there) round otherwise than numpy, in every deterministic mode and a random one."""
    kinds: list[Callable[[Array], Any]] = [torch.from_numpy]
    if importlib.util.find_spec("jax") is not None:
        kinds.append(importlib.import_module("jax.numpy").asarray)
    wrong = 0
    for rmode in (1, 2, 3, 4, 5, 7, 8, 9):
        wanted = Chop(5, 10, rmode)(x)
        wrong += sum(_differ(np.asarray(Chop(5, 10, rmode)(kind(x))), wanted) for kind in kinds)
    return wrong


def _system(x: Tensor, n: int) -> tuple[Array, Array, Array]:
    """Normal equations of `n` pixels of real images, scaled to a unit diagonal with a tenth added: (A, b, solution), float64."""
    pixels = x.reshape(len(x), -1)[:, :: max(1, 3072 // n)][:, :n].double().numpy()
    gram = pixels.T @ pixels
    d = 1 / np.sqrt(np.diag(gram))
    a = gram * d[:, None] * d + 0.1 * np.eye(n)
    solution = np.cos(np.arange(n))
    return a, a @ solution, solution


def lu(a: Array, chop: Callable[[Array], Array]) -> Array:
    """The factors of a [n, n] in one matrix, without pivoting, every product, difference and quotient rounded by `chop`."""
    f = chop(a.copy())
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a pivot may be rounded to zero
        for k in range(len(f) - 1):
            f[k + 1 :, k] = chop(f[k + 1 :, k] / f[k, k])
            f[k + 1 :, k + 1 :] = chop(f[k + 1 :, k + 1 :] - chop(np.outer(f[k + 1 :, k], f[k, k + 1 :])))
    return f


def _lu_mismatches(x: Tensor, n: int) -> int:
    """Entries of LU factors in emulated binary16 that differ from the factors in numpy's float16."""
    a = _system(x, n)[0]
    native = lu(a.astype(np.float16), lambda v: v)
    return _differ(lu(a, Chop(5, 10)), native.astype(np.float64))


def _refinement(x: Tensor, n: int) -> dict[str, dict[str, float]]:
    """Steps until the relative residual is below 1e-14 (99: never), and the first and last relative errors, by factor format."""
    a, b, solution = _system(x, n)
    found = {"condition": {"number": float(np.linalg.cond(a))}}
    for label, (exponent, fraction) in {"fp16": (5, 10), "bf16": (8, 7), "e4m3": (4, 3)}.items():
        factors = lu(a, Chop(exponent, fraction))
        lower, upper = np.tril(factors, -1) + np.eye(n), np.triu(factors)
        now, errors, steps = np.zeros(n), [], 99
        for step in range(40):
            residual = b - a @ now
            if np.abs(residual).max() <= 1e-14 * (np.abs(a) @ np.abs(now) + np.abs(b)).max():
                steps = step
                break
            try:
                now = now + np.linalg.solve(upper, np.linalg.solve(lower, residual))
            except np.linalg.LinAlgError:
                break
            errors.append(float(np.linalg.norm(now - solution) / np.linalg.norm(solution)))
            if not np.isfinite(errors[-1]) or errors[-1] > 1e6:
                break
        found[label] = {
            "steps": steps,
            "first": errors[0] if errors else np.inf,
            "last": errors[-1] if errors else np.inf,
        }
    return found


def _network(context: Context, net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Percent of images right with everything rounded, by format and mode."""
    found: dict[str, Any] = {"fp32": accuracy(net, x, y, lambda *_: None)}
    original = {name: p.detach().clone() for name, p in net.named_parameters()}
    done = 0
    for label, (exponent, fraction) in NETWORK_FORMATS.items():
        found[label] = {}
        for mode, rmode in MODES.items():
            context.progress("network", done, len(NETWORK_FORMATS) * len(MODES))
            done += 1
            chop = _rounding(f"e{exponent}m{fraction}ieee", RMODES[rmode])
            hooks = []
            for module in net.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    with torch.no_grad():
                        module.weight.copy_(chop(module.weight.detach()))
                    hooks.append(module.register_forward_pre_hook(lambda _, given, c=chop: (c(given[0]),)))
                    hooks.append(module.register_forward_hook(lambda _, given, out, c=chop: c(out)))
            found[label][mode] = accuracy(net, x, y, lambda *_: None)
            for hook in hooks:
                hook.remove()
            with torch.no_grad():
                for name, p in net.named_parameters():
                    p.copy_(original[name])
        rounded = found[label]
        rounded["directed"] = max(rounded["up"], rounded["down"])
        rounded["lost"] = found["fp32"] - min(rounded["nearest"], rounded["stochastic"])
    return found


def _rounding(name: str, mode: Mode) -> Callable[[Tensor], Tensor]:
    """Rounding to a format; the random mode takes other numbers at every call."""
    fmt, calls = formats.get(name), itertools.count()

    def chop(x: Tensor) -> Tensor:
        return fmt.round(x, mode, StochasticKey(next(calls)) if mode == "stochastic" else None)

    return chop


def _itself(x: Array) -> dict[str, float]:
    """Shares of numbers that Pychop rounds to other values than the oracles, where it is installed."""
    if importlib.util.find_spec("pychop") is None:
        return {"installed": 0}
    chop = importlib.import_module("pychop").Chop
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        wanted = {"nearest": x.astype(np.float16).astype(np.float32)} | _directed(x)
        found = {
            label: _differ(
                np.asarray(chop(exp_bits=5, sig_bits=10, rmode=MODES[label])(wide)), value.astype(np.float64)
            )
            / len(x)
            for label, value in wanted.items()
        }
    return {"installed": 1, **found}


EXPERIMENT = Experiment(
    number=42,
    name="pychop",
    claim="Rounding every result to a described grid emulates arbitrary float, fixed-point and block formats faithfully, with many "
    "rounding modes, on several array libraries.",
    source="2025; repository inEXASCALE/pychop",
    checks=(
        Check(
            "binary16, bfloat16, E5M2, E4M3, fixed point and directed modes: the bits of the oracles",
            "mismatches.all",
            "==",
            0,
        ),
        Check("stochastic rounding: means within 4 standard errors", "stochastic.deviations", "<=", 4),
        Check("stochastic rounding: numbers on the grid stay", "stochastic.moved", "==", 0),
        Check("MXFP4 of real weights: every value a nearest one", "blocks", "==", 0),
        Check("torch arrays, and JAX arrays where JAX is installed: the bits of numpy", "libraries", "==", 0),
        Check("LU factors in emulated binary16: the bits of numpy's float16 arithmetic", "lu", "==", 0),
        Check("refinement with binary16 factors reaches float64", "refinement.fp16.steps", "<=", 15),
        Check("fewer fraction bits need more steps", "refinement.bf16.steps", ">", "refinement.fp16.steps"),
        Check("E4M3, nearest or stochastic: ResNet-20 loses 5 points at most", "network.e4m3.lost", "<=", 5),
        Check("E4M3: nearest beats toward zero", "network.e4m3.nearest", ">", "network.e4m3.zero"),
        Check("E5M2: nearest beats toward zero", "network.e5m2.nearest", ">", "network.e5m2.zero"),
        Check(
            "E4M3: up and down lose far more than toward zero", "network.e4m3.directed", "<", "network.e4m3.zero", -10
        ),
        Check("E5M2: up and down are useless", "network.e5m2.directed", "<=", 30),
    ),
    run=run,
    key_figures={
        "numbers compared": "patterns",
        "refinement steps fp16": "refinement.fp16.steps",
        "bf16": "refinement.bf16.steps",
        "ResNet-20 E4M3 nearest": "network.e4m3.nearest",
        "toward zero": "network.e4m3.zero",
        "up or down": "network.e4m3.directed",
    },
    notes="Formats named as IEEE-like: E4M3 of the network has infinity and largest value 240. Without training.",
)
