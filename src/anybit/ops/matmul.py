"""`matmul`: y = x Wᵀ + b with weights and activations of any format, by the kernel predicted to be fastest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anybit.errors import FormatError
from anybit.formats import TensorFormat
from anybit.formats.native import empty
from anybit.ops import costs as known
from anybit.ops import native, reference
from anybit.ops.costs import Costs
from anybit.ops.dispatch import Kernel, Problem, calibrated, choose, costs
from anybit.ops.emulated import Accumulator, emulated_matmul
from anybit.ops.invariant import DETERMINISM, Determinism, invariant_matmul, layercast_matmul
from anybit.ops.packed import DENSE, Packed, element, prepack
from anybit.ops.product import Product, named
from anybit.ops.static import StaticActivations, StaticFormat, activations
from anybit.tensors import QTensor

Weight = QTensor | Tensor | Packed
Act = TensorFormat | StaticActivations | None
_BF16 = TensorFormat.parse("bf16")


def matmul(
    x: Tensor,
    w: Weight,
    bias: Tensor | None = None,
    act: Act = None,
    out_dtype: torch.dtype | None = None,
    *,
    multiply: str | Product = "exact",
    accumulate: Accumulator | None = None,
    determinism: Determinism = "none",
) -> Tensor:
    """x [..., k] floating, w [n, k], bias [n] -> [..., n] in `out_dtype` (default: x's).

    act: None multiplies with x as it is, sums in float32.  int8/row and int8/gN (N a multiple of 32) round x to 8 bits (intM/…: M) and
    multiply integers, with float32 sums over groups; int8/tensor has one scale for all rows, int8/tensor:e8m0 a power of two, and
    `StaticActivations` (`ops.static`) one that is known beforehand.  Weights of int16 take int16/… too (`ops.dfp`).  Other formats round
    x to their values and multiply those.
    A `Packed` weight costs its bytes only; a QTensor is packed at every call, so pack what is used again.
    Results do not depend on the number of threads. Inference only: no gradient flows through kernels.

    multiply and accumulate emulate other arithmetic (`ops.emulated`), several times slower than a plain product.
    determinism (`ops.invariant`): "layercast" keeps weights in 16 bits and computes in float32; "invariant" besides adds in one tree
    that depends on k only, so that batches, splits and tensor-parallel parts do not show in the result.
    Raises ValueError where the shapes do not fit, and for options that exclude each other.
    """
    # The shortest products take as long as a dozen steps of Python: what the call before settled is not looked up again.
    if type(w) is Packed and w.quick and type(x) is Tensor and (out_dtype is None or out_dtype is _FLOAT):
        rounded, edition, run = w.quick[0]
        if (
            rounded is act
            and edition == known.edition
            and multiply == "exact"
            and accumulate is None
            and determinism == "none"
        ):
            done: Tensor | None = run(x, bias)
            if done is not None:
                return done
    plain = multiply == "exact" and accumulate is None and determinism == "none"
    emulate = not plain and _emulates(multiply, accumulate, determinism)
    if not plain and isinstance(w, Packed):
        w.refuse_kept("other arithmetic")
    k = w.k if isinstance(w, Packed) else w.shape[-1]
    if x.shape[-1] != k:
        raise ValueError(f"x has {x.shape[-1]} columns, the weight {k}")
    n = w.n if isinstance(w, Packed) else w.shape[0]
    if bias is not None and bias.shape != (n,):
        raise ValueError(f"the bias must have the shape ({n},); got {tuple(bias.shape)}")
    if emulate:
        y = emulated_matmul(reference.round_activations(x, act), _values(w), multiply, accumulate)
        y = y if bias is None else y + bias.float()
        return y.to(out_dtype or x.dtype)
    if determinism != "none":
        rounded = reference.round_activations(x, act)
        y = layercast_matmul(rounded, w, bias) if determinism == "layercast" else invariant_matmul(rounded, w, bias)
        return y.to(out_dtype or x.dtype)
    if type(w) is not Packed and isinstance(w, QTensor) and x.device.type == "cpu" and native.load() is not None:
        w = prepack(w)
    result = _runner(x, w, act)(x, w, bias)
    dtype = out_dtype or x.dtype
    return result if result.dtype is dtype else result.to(dtype)


def _emulates(multiply: str | Product, accumulate: Accumulator | None, determinism: str) -> bool:
    """Whether other arithmetic is asked for; ValueError for what is unknown or excludes another."""
    if determinism not in DETERMINISM:
        raise ValueError(f"determinism is one of {', '.join(DETERMINISM)}; got {determinism!r}")
    emulate = accumulate is not None or (multiply != "exact" and named(multiply) != Product())
    if emulate and determinism != "none":
        raise ValueError("emulated arithmetic has an order of its own; leave determinism at 'none'")
    return emulate


def _runner(x: Tensor, w: Weight, act: Act) -> Callable[..., Tensor]:
    """The choice for a problem, called with x, w and bias; kept with a packed weight, for one product of a model takes as long as a few
    choices."""
    if not isinstance(w, Packed) or w.handle is None:
        return _bound(choose(KERNELS, problem_of(x, w, act)).kernel, act)
    key = x.numel() // max(1, w.k), act, x.device, costs()
    settled = w.kernels.get(key)
    if settled is None:
        runner = _bound(choose(KERNELS, problem_of(x, w, act)).kernel, act)
        settled = w.kernels[key] = runner, _quick(runner, w, key[0])
    chosen: Callable[..., Tensor] = settled[0]
    if settled[1] is not None:
        w.quick[:] = [(act, known.edition, settled[1])]
    return chosen


def _quick(runner: Callable[..., Tensor], w: Packed, rows: int) -> Any:
    """The same product in C, called with x and bias; None where there is none."""
    if not isinstance(runner, partial) or not exchanges():
        return None
    names = _QUICK.get(runner.func)
    if names is None:
        return None
    return native.loaded().Quick(
        Tensor, w.handle, rows, **{names[name]: value for name, value in runner.keywords.items()}
    )


@functools.cache
def exchanges() -> bool:
    """Whether this torch gives and takes tensors in C (from 2.10 on)."""
    return bool(native.loaded().exchanges(Tensor))


_FLOAT = torch.float32


def _bound(kernel: Kernel, act: Act) -> Callable[..., Tensor]:
    """The kernel with its activations."""
    if kernel.run is run_native:
        of = reference.integer_act(act, tiles=True)
        assert of is not None, "the kernel accepted the activations"
        return partial(run_native, group=of.group, levels=of.levels, whole=of.whole, scale=of.scale)
    if kernel.run is _run_exact and (act is None or act == _BF16):
        return partial(run_native, group=-1 if act is None else -2)
    if kernel.run is run_planes:
        of = reference.integer_act(act)
        assert of is not None, "the kernel accepted the activations"
        return partial(run_planes, group=of.group, bits=of.bits)
    return partial(kernel.run, act=act)


def _whole(w: Weight) -> QTensor | Tensor:
    """The weight itself; ValueError where only its packed form is left."""
    if not isinstance(w, Packed):
        return w
    if w.source is None:
        raise ValueError("this product needs the weight itself; give the tensor or QTensor instead of its packed form")
    return w.source


def _values(w: Weight) -> Tensor:
    return reference.dense(_whole(w), torch.float32)


def problem_of(x: Tensor, w: Weight, act: Act) -> Problem:
    """The problem of a call. FormatError for a static format without a scale."""
    if isinstance(act, StaticFormat):
        raise FormatError(
            f"activations as {act} need their scale: {act.element.name}/static is used as StaticFormat.at(scale)"
        )
    m = x.numel() // max(1, x.shape[-1])
    device = x.device.type
    spec = None if act is None else act.format.dynamic if isinstance(act, StaticActivations) else str(act)
    if isinstance(w, Packed):
        native_ok = w.handle is not None
        padded = native_ok and bool(w.handle.padded_groups)
        return Problem(
            m, w.n, w.k, w.name, w.nbytes, spec, native_ok, w.integer, w.group, padded, device, w.element, w.order
        )
    name = str(w.format) if isinstance(w, QTensor) else DENSE.get(w.dtype, str(w.dtype))
    held = "" if isinstance(w, QTensor) else name
    return Problem(m, w.shape[0], w.shape[-1], name, int(w.nbytes), spec, False, False, 0, False, device, held)


def described(problem: tuple[int, int, int, str, str | None]) -> Problem:
    """The problem of (m, n, k, weight spec, activation spec or None) with a packed weight."""
    m, n, k, weights, act = problem
    fmt = TensorFormat.parse(weights)
    given = None if act is None else activations(act)
    activation = None if given is None else given.dynamic if isinstance(given, StaticFormat) else str(given)
    dense_bits = {"fp32": 32, "bf16": 16, "fp16": 16}.get(weights)
    wide = fmt.block[1] or k
    scales = 0 if fmt.scale is None else -(-k // wide) * fmt.scale.bits // 8
    size = n * k * dense_bits // 8 if dense_bits else n * (-(-k * fmt.bits // 8) + scales)
    held = element(fmt)
    integer = held not in (*DENSE.values(), "int16")
    loaded = native.load() is not None
    group = 0 if dense_bits else wide
    return Problem(m, n, k, weights, size, activation, loaded, integer and loaded, group, False, "cpu", held)


def explain(op: str, problem: tuple[int, int, int, str, str | None]) -> dict[str, Any]:
    """What `matmul` would choose for (m, n, k, weight spec, activation spec or None) with a packed weight, and why.

    Keys: kernel, predicted_seconds (weights read from memory), why, calibrated (whether this machine was measured by
    `anybit doctor --calibrate`), candidates (each kernel, refused: reason or None, predicted_seconds).
    Raises ValueError for another op.
    """
    if op != "matmul":
        raise ValueError(f"only 'matmul' is chosen by prediction; got {op!r}")
    choice = choose(KERNELS, described(problem))
    return {
        "op": op,
        "kernel": choice.kernel.name,
        "predicted_seconds": choice.kernel.cost(choice.problem),
        "calibrated": calibrated(),
        "why": choice.why,
        "candidates": [
            {"kernel": name, "refused": refused, "predicted_seconds": cost} for name, refused, cost in choice.candidates
        ],
    }


def predicted(problem: tuple[int, int, int, str, str | None], table: Costs) -> float:
    """Seconds of the native kernel that would be chosen with another table of costs. ValueError without the native module."""
    found = described(problem)
    native_kernels = (
        (_native_int8, _seconds_int8),
        (_native_int16, _seconds_int16),
        (_native_exact, _seconds_exact),
    )
    return min(seconds(found, table) for accepts, seconds in native_kernels if accepts(found) is None)


def _native_int8(p: Problem) -> str | None:
    act = reference.integer_act(p.act, tiles=True)
    if act is not None and act.bits > 8:
        return "activations have more than 8 bits"
    return _integers(p, "tiles")


def _native_int16(p: Problem) -> str | None:
    if p.packed and p.element != "int16":
        return f"{p.weights} is not int16"
    return _integers(p, "tiles")


def _integers(p: Problem, order: str) -> str | None:
    """Why integer activations do not multiply a weight packed in `order`."""
    act = reference.integer_act(p.act, tiles=order == "tiles")
    if not p.packed:
        return "the weight is not packed (or the native module is missing)"
    if p.order != order:
        return f"the weight is packed as {p.order}"
    if act is None:
        most = "16 bits with a scale for all rows," if order == "tiles" else "8 bits with a scale"
        return f"activations are no signed integers of 2 to {most} a row or a group of a multiple of 32"
    if not p.integer and not (p.element == "int16" and order == "tiles"):
        return f"{p.weights} has no integer form"
    if p.padded and act.group and act.group != p.group:
        return f"groups of {p.group} are padded, so activations must share them or be int8/row"
    return None


def _native_exact(p: Problem) -> str | None:
    if not p.packed:
        return "the weight is not packed (or the native module is missing)"
    if p.order != "tiles":
        return f"the weight is packed as {p.order}"
    # bits must not depend on what a machine is predicted to take, so where integers can be multiplied they are
    return "integers multiply these" if _native_int8(p) is None or _native_int16(p) is None else None


def _bit_serial(p: Problem) -> str | None:
    return _integers(p, "bits")


def _lookup(p: Problem) -> str | None:
    return _integers(p, "nibbles")


def _torch_plain(p: Problem) -> str | None:
    if p.packed:
        return "the weight is packed"
    return None if p.weights in DENSE.values() else f"{p.weights} is not a plain tensor"


def _reference(p: Problem) -> str | None:
    return "the weight is packed and its source gone" if p.packed else None


def _seconds_int8(p: Problem, table: Costs) -> float:
    return _seconds_integers(p, table, "int8")


def _seconds_int16(p: Problem, table: Costs) -> float:
    return _seconds_integers(p, table, "int16")


def _seconds_integers(p: Problem, table: Costs, family: str) -> float:
    act = reference.integer_act(p.act, tiles=True)
    group = act.group if act is not None and act.group else p.k
    return table.seconds(family, p.element, p.m, p.n, p.k, min(p.group or p.k, group), p.weight_bytes)


def _seconds_bit_serial(p: Problem, table: Costs) -> float:
    act = reference.integer_act(p.act)
    assert act is not None, "accepted"
    return _counted(p, table, 3 * act.bits)  # an and, a count and an addition a plane of x


def _seconds_lookup(p: Problem, table: Costs) -> float:
    return _counted(p, table, 17)


def _counted(p: Problem, table: Costs, instructions: int) -> float:
    """Of so many instructions for 64 bytes of weights and a row of x, as many a second as of integer products (of 64 bytes)."""
    rate = table.peaks.get("int8", table.bandwidth * 128) / 128
    return max(p.weight_bytes / table.bandwidth, instructions * p.m * p.weight_bytes / 64 / rate) + table.call


def _seconds_exact(p: Problem, table: Costs) -> float:
    family = "bf16" if p.act == "bf16" and any(name.startswith("bf16/") for name in table.kernels) else "exact"
    rounding = 0.0 if p.act in (None, "bf16") else table.prepared("rounding", p.m, p.k)
    return table.seconds(family, p.element, p.m, p.n, p.k, p.group, p.weight_bytes) + rounding


def _seconds_torch(p: Problem, table: Costs) -> float:
    return table.seconds("torch", p.element, p.m, p.n, p.k, 0, p.weight_bytes)


def _seconds_reference(p: Problem, table: Costs) -> float:
    return table.seconds("reference", "integer4", p.m, p.n, p.k, 0, p.weight_bytes)


def run_native(
    x: Tensor,
    w: Packed,
    bias: Tensor | None,
    group: int,
    levels: int = 127,
    wide: int = 0,
    whole: str = "",
    scale: float = 0.0,
) -> Tensor:
    """The compiled product -> float32 [..., n]; group -2 and -1 exact (x rounded to bf16, as it is), 0 a scale a row, else a scale a group.

    wide: of how many first groups the codes are of 8 bits whatever `levels`.  whole, scale: as `reference.IntegerActivations` has
    them.
    """
    rows = as_rows(x)
    m = rows.shape[0]
    y = empty(m * w.n, np.float32).reshape(m, w.n)  # half the time of an empty tensor and its view
    native.loaded().matmul(w.handle, rows.numpy(), group, y, as_bias(bias), False, False, levels, wide, whole, scale)
    out = torch.from_numpy(y)
    return out if rows is x else out.reshape(*x.shape[:-1], w.n)


def as_rows(x: Tensor) -> Tensor:
    """x [..., k] as compiled products take it: float32 [m, k], contiguous, without gradient; x itself where it is that."""
    # every operation of torch that is left out is a tenth of the shortest products
    if x.requires_grad or x.dtype is not torch.float32 or x.dim() != 2 or not x.is_contiguous():
        return x.detach().to(torch.float32).reshape(-1, x.shape[-1]).contiguous()
    return x


def as_bias(bias: Tensor | None) -> Any:
    """A bias as compiled products take it: float32, contiguous, without gradient; None for none."""
    return None if bias is None else bias.detach().to(torch.float32).contiguous().numpy()


def run_planes(x: Tensor, w: Packed, bias: Tensor | None, group: int, bits: int) -> Tensor:
    """The compiled product with planes -> float32 [..., n]; x as integers of `bits` bits, a scale a row (group 0) or group."""
    return _planes(x, (w,), group, bits, bias)[0]


_QUICK: dict[Any, dict[str, str]] = {
    run_native: {"group": "act_group", "levels": "levels", "whole": "whole", "scale": "scale"},
    run_planes: {"group": "act_group", "bits": "act_bits"},
}
"""What `Quick` calls the arguments of the compiled products."""


def plane_matmul(
    x: Tensor, weights: Sequence[Packed], act: TensorFormat, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """x [..., k] times each of some weights [n_i, k] packed in planes -> float32 [..., n_i]; x is rounded and tabulated once for all.

    The bias is added to each. Raises ValueError for activations that are no signed integers and weights that are packed otherwise.
    """
    of = reference.integer_act(act)
    if of is None or any(w.order == "tiles" or w.handle is None for w in weights):
        raise ValueError(f"planes of bits multiply signed integer activations with a scale a row or group; got {act}")
    return _planes(x, weights, of.group, of.bits, bias)


def _planes(x: Tensor, weights: Sequence[Packed], group: int, bits: int, bias: Tensor | None) -> tuple[Tensor, ...]:
    rows = as_rows(x)
    outs = [torch.empty(rows.shape[0], w.n) for w in weights]
    handles, results = [w.handle for w in weights], [y.numpy() for y in outs]
    native.loaded().plane_matmul(handles, rows.numpy(), group, bits, results, as_bias(bias))
    return tuple(y.reshape(*x.shape[:-1], y.shape[1]) for y in outs)


def _run_exact(x: Tensor, w: Packed, bias: Tensor | None, act: Act) -> Tensor:
    rounded = (
        reference.round_activations(x, act) if w.kept is None else _rounded_apart(x, w.kept[0], act, put_back=True)
    )
    return run_native(rounded, w, bias, -1)


def _rounded_apart(x: Tensor, columns: Tensor, act: Act, put_back: bool) -> Tensor:
    """x rounded as if it were zero in `columns`, which are put back as they are or not."""
    rounded = reference.round_activations(x.index_fill(-1, columns, 0.0), act).float()
    return rounded.index_copy(-1, columns, x.index_select(-1, columns).float()) if put_back else rounded


def _run_torch(x: Tensor, w: Tensor, bias: Tensor | None, act: Act) -> Tensor:
    dtype = torch.promote_types(x.dtype, w.dtype)
    b = None if bias is None else bias.to(dtype)
    return torch.nn.functional.linear(reference.round_activations(x, act).to(dtype), w.to(dtype), b)


def _run_reference(x: Tensor, w: Weight, bias: Tensor | None, act: Act) -> Tensor:
    source = w.source if isinstance(w, Packed) else w
    assert source is not None, "a weight without a kernel handle keeps its source"
    if not isinstance(w, Packed) or w.kept is None:
        return reference.matmul(x, source, bias, act)
    columns, values = w.kept
    y = reference.matmul(_rounded_apart(x, columns, act, put_back=False), source, bias)
    return y + x.index_select(-1, columns).float() @ values.float().T


def _kernel_of(
    name: str,
    accepts: Callable[[Problem], str | None],
    seconds: Callable[[Problem, Costs], float],
    run: Callable[..., Any],
) -> Kernel:
    """A kernel that costs what the table of this machine says."""
    return Kernel(name, accepts, lambda p: seconds(p, costs()), run)


KERNELS: tuple[Kernel, ...] = (
    _kernel_of("native int8", _native_int8, _seconds_int8, run_native),
    _kernel_of("native int16", _native_int16, _seconds_int16, run_native),
    _kernel_of("native bit-serial", _bit_serial, _seconds_bit_serial, run_planes),
    _kernel_of("native lookup", _lookup, _seconds_lookup, run_planes),
    _kernel_of("native exact", _native_exact, _seconds_exact, _run_exact),
    _kernel_of("torch linear", _torch_plain, _seconds_torch, _run_torch),
    _kernel_of("reference", _reference, _seconds_reference, _run_reference),
)
