"""`matmul`: y = x Wᵀ + b with weights and activations of any format, by the kernel predicted to be fastest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anybit.formats import TensorFormat
from anybit.ops import native, reference
from anybit.ops.dispatch import Kernel, Problem, choose, rates
from anybit.ops.emulated import Accumulator, emulated_matmul
from anybit.ops.invariant import DETERMINISM, Determinism, invariant_matmul, layercast_matmul
from anybit.ops.packed import DENSE, Packed, prepack
from anybit.ops.product import Product, named
from anybit.tensors import QTensor

Weight = QTensor | Tensor | Packed


def matmul(
    x: Tensor,
    w: Weight,
    bias: Tensor | None = None,
    act: TensorFormat | None = None,
    out_dtype: torch.dtype | None = None,
    *,
    multiply: str | Product = "exact",
    accumulate: Accumulator | None = None,
    determinism: Determinism = "none",
) -> Tensor:
    """x [..., k] floating, w [n, k], bias [n] -> [..., n] in `out_dtype` (default: x's).

    act: None multiplies with x as it is, sums in float32.  int8/row and int8/gN (N a multiple of 32) round x to 8 bits (intM/…: M) and
    multiply integers, with float32 sums over groups.  Other formats round x to their values and multiply those.
    A `Packed` weight costs its bytes only; a QTensor is packed at every call, so pack what is used again.
    Results do not depend on the number of threads. Inference only: no gradient flows through kernels.

    multiply and accumulate emulate other arithmetic (`ops.emulated`), several times slower than a plain product.
    determinism (`ops.invariant`): "layercast" keeps weights in 16 bits and computes in float32; "invariant" besides adds in one tree
    that depends on k only, so that batches, splits and tensor-parallel parts do not show in the result.
    Raises ValueError where the shapes do not fit, and for options that exclude each other.
    """
    if determinism not in DETERMINISM:
        raise ValueError(f"determinism is one of {', '.join(DETERMINISM)}; got {determinism!r}")
    emulate = accumulate is not None or named(multiply) != Product()
    if emulate and determinism != "none":
        raise ValueError("emulated arithmetic has an order of its own; leave determinism at 'none'")
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
    if isinstance(w, QTensor) and x.device.type == "cpu" and native.load() is not None:
        w = prepack(w)
    choice = choose(KERNELS, problem_of(x, w, act))
    result: Tensor = choice.kernel.run(x, w, bias, act)
    return result.to(out_dtype or x.dtype)


def _whole(w: Weight) -> QTensor | Tensor:
    """The weight itself; ValueError where only its packed form is left."""
    if not isinstance(w, Packed):
        return w
    if w.source is None:
        raise ValueError("this product needs the weight itself; give the tensor or QTensor instead of its packed form")
    return w.source


def _values(w: Weight) -> Tensor:
    return reference.dense(_whole(w), torch.float32)


def problem_of(x: Tensor, w: Weight, act: TensorFormat | None) -> Problem:
    """The problem of a call."""
    m = x.numel() // max(1, x.shape[-1])
    device = x.device.type
    spec = None if act is None else str(act)
    if isinstance(w, Packed):
        name = "plain" if w.format is None else str(w.format)
        native_ok = w.handle is not None
        padded = native_ok and bool(w.handle.padded_groups)
        return Problem(m, w.n, w.k, name, w.nbytes, spec, native_ok, w.integer, w.group, padded, device, w.order)
    name = str(w.format) if isinstance(w, QTensor) else DENSE.get(w.dtype, str(w.dtype))
    return Problem(m, w.shape[0], w.shape[-1], name, int(w.nbytes), spec, False, False, 0, False, device)


def explain(op: str, problem: tuple[int, int, int, str, str | None]) -> dict[str, Any]:
    """What `matmul` would choose for (m, n, k, weight spec, activation spec or None) with a packed weight, and why.

    Keys: kernel, predicted_seconds, why, candidates (each kernel, refused: reason or None, predicted_seconds).
    Raises ValueError for another op.
    """
    if op != "matmul":
        raise ValueError(f"only 'matmul' is chosen by prediction; got {op!r}")
    m, n, k, weights, act = problem
    fmt = TensorFormat.parse(weights)
    activation = None if act is None else str(TensorFormat.parse(act))
    dense_bits = {"fp32": 32, "bf16": 16, "fp16": 16}.get(weights)
    wide = fmt.block[1] or k
    scales = 0 if fmt.scale is None else -(-k // wide) * fmt.scale.bits // 8
    size = n * k * dense_bits // 8 if dense_bits else n * (-(-k * fmt.bits // 8) + scales)
    integer = dense_bits is None and (fmt.bits <= 4 or fmt.element.name.startswith(("int", "uint")))
    loaded = native.load() is not None
    choice = choose(KERNELS, Problem(m, n, k, weights, size, activation, loaded, integer and loaded, wide, False))
    return {
        "op": op,
        "kernel": choice.kernel.name,
        "predicted_seconds": choice.kernel.cost(choice.problem),
        "why": choice.why,
        "candidates": [
            {"kernel": name, "refused": refused, "predicted_seconds": cost} for name, refused, cost in choice.candidates
        ],
    }


def _native_int8(p: Problem) -> str | None:
    return _integers(p, "tiles")


def _integers(p: Problem, order: str) -> str | None:
    """Why integer activations do not multiply a weight packed in `order`."""
    act = reference.integer_act(p.act)
    if not p.packed:
        return "the weight is not packed (or the native module is missing)"
    if p.order != order:
        return f"the weight is packed as {p.order}"
    if act is None:
        return "activations are no signed integers of 2 to 8 bits with a scale a row or a group of a multiple of 32"
    if not p.integer:
        return f"{p.weights} has no integer form"
    if p.padded and act.group and act.group != p.group:
        return f"groups of {p.group} are padded, so activations must share them or be int8/row"
    return None


def _native_exact(p: Problem) -> str | None:
    if not p.packed:
        return "the weight is not packed (or the native module is missing)"
    return None if p.order == "tiles" else f"the weight is packed as {p.order}"


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


def _cost_int8(p: Problem) -> float:
    r = rates()
    return max(p.weight_bytes / r.bandwidth, p.m * p.n * p.k / r.int8) + r.call


def _cost_bit_serial(p: Problem) -> float:
    act = reference.integer_act(p.act)
    assert act is not None, "accepted"
    # an and, a count and an addition a plane of x for every 64 bytes of weights, beside one product for 4 of its columns
    return max(p.weight_bytes / rates().bandwidth, 1.5 * p.m * act.bits * p.weight_bytes / rates().int8) + rates().call


def _cost_lookup(p: Problem) -> float:
    # 17 instructions for 64 bytes of weights
    return max(p.weight_bytes / rates().bandwidth, 8.5 * p.m * p.weight_bytes / rates().int8) + rates().call


def _cost_exact(p: Problem) -> float:
    r = rates()
    # unpacking to float32 is work of its own while one row is multiplied
    return max(p.weight_bytes / r.bandwidth, (p.m + 1) * p.n * p.k / r.exact) + r.call


def _cost_torch(p: Problem) -> float:
    r = rates()
    return max(p.weight_bytes / r.bandwidth, p.m * p.n * p.k / r.torch) + r.call


def _cost_reference(p: Problem) -> float:
    r = rates()
    # three passes over a float32 copy of the weight, then torch's product
    return 3 * 4 * p.n * p.k / r.bandwidth + p.m * p.n * p.k / r.torch + 5e-5


def run_native(x: Tensor, w: Packed, bias: Tensor | None, group: int, levels: int = 127, wide: int = 0) -> Tensor:
    """The compiled product -> float32 [..., n]; group -2 and -1 exact (x bf16, any), 0 a scale a row, else a scale a group.

    wide: of how many first groups the codes are of 8 bits whatever `levels`.
    """
    module = native.load()
    assert module is not None, "packed weights come from the native module"
    rows = x.detach().to(torch.float32).reshape(-1, w.k).contiguous()
    out = torch.empty(rows.shape[0], w.n)
    module.matmul(w.handle, rows.numpy(), group, out.numpy(), _bias(bias), levels=levels, wide=wide)
    return out.reshape(*x.shape[:-1], w.n)


def _bias(bias: Tensor | None) -> Any:
    return None if bias is None else bias.detach().to(torch.float32).contiguous().numpy()


def _run_int8(x: Tensor, w: Packed, bias: Tensor | None, act: TensorFormat) -> Tensor:
    of = reference.integer_act(act)
    assert of is not None, "the kernel accepted the activations"
    return run_native(x, w, bias, of.group, of.levels)


def _run_planes(x: Tensor, w: Packed, bias: Tensor | None, act: TensorFormat) -> Tensor:
    return plane_matmul(x, (w,), act, bias)[0]


def plane_matmul(
    x: Tensor, weights: Sequence[Packed], act: TensorFormat, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """x [..., k] times each of some weights [n_i, k] packed in planes -> float32 [..., n_i]; x is rounded and tabulated once for all.

    The bias is added to each. Raises ValueError for activations that are no signed integers and weights that are packed otherwise.
    """
    module, of = native.load(), reference.integer_act(act)
    if of is None or any(w.order == "tiles" or w.handle is None for w in weights):
        raise ValueError(f"planes of bits multiply signed integer activations with a scale a row or group; got {act}")
    assert module is not None, "packed weights come from the native module"
    rows = x.detach().to(torch.float32).reshape(-1, x.shape[-1]).contiguous()
    outs = [torch.empty(rows.shape[0], w.n) for w in weights]
    module.plane_matmul(
        [w.handle for w in weights], rows.numpy(), of.group, of.bits, [y.numpy() for y in outs], _bias(bias)
    )
    return tuple(y.reshape(*x.shape[:-1], y.shape[1]) for y in outs)


def _run_exact(x: Tensor, w: Packed, bias: Tensor | None, act: TensorFormat | None) -> Tensor:
    return run_native(reference.round_activations(x, act), w, bias, -2 if str(act) == "bf16" else -1)


def _run_torch(x: Tensor, w: Tensor, bias: Tensor | None, act: TensorFormat | None) -> Tensor:
    dtype = torch.promote_types(x.dtype, w.dtype)
    b = None if bias is None else bias.to(dtype)
    return torch.nn.functional.linear(reference.round_activations(x, act).to(dtype), w.to(dtype), b)


def _run_reference(x: Tensor, w: Weight, bias: Tensor | None, act: TensorFormat | None) -> Tensor:
    source = w.source if isinstance(w, Packed) else w
    assert source is not None, "a weight without a kernel handle keeps its source"
    return reference.matmul(x, source, bias, act)


KERNELS: tuple[Kernel, ...] = (
    Kernel("native int8", _native_int8, _cost_int8, _run_int8),
    Kernel("native bit-serial", _bit_serial, _cost_bit_serial, _run_planes),
    Kernel("native lookup", _lookup, _cost_lookup, _run_planes),
    Kernel("native exact", _native_exact, _cost_exact, _run_exact),
    Kernel("torch linear", _torch_plain, _cost_torch, _run_torch),
    Kernel("reference", _reference, _cost_reference, _run_reference),
)
