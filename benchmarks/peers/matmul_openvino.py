"""OpenVINO's products with compressed weights: in its own floating point, or with activations rounded to 8 bits in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op
from run_matmul import Floats, Lacks, Product, normal, repeated

GROUP = 128
# name -> (type of the codes, bits, middle code, whether activations are rounded)
FORMATS = {
    "u2 g128": (ov.Type.u2, 2, 2, False),
    "u2 g128 dynamic": (ov.Type.u2, 2, 2, True),
    "i4 g128": (ov.Type.i4, 4, 0, False),
    "i4 g128 dynamic": (ov.Type.i4, 4, 0, True),
    "u4 g128 dynamic": (ov.Type.u4, 4, 8, True),
    "i8 rows": (ov.Type.i8, 8, 0, False),
    "i8 rows dynamic": (ov.Type.i8, 8, 0, True),
}


def packed(codes: Any, bits: int) -> Any:
    """Codes [..., c] as bytes, the first in the lowest bits."""
    each = 8 // bits
    unsigned = codes.astype(np.int16).reshape(-1, each) & ((1 << bits) - 1)
    return sum(unsigned[:, place] << (bits * place) for place in range(each)).astype(np.uint8)


def tensor(kind: ov.Type, shape: Any, bits: Any) -> ov.Tensor:
    """A tensor of narrow codes that holds its own bytes: one made around an array does not keep that alive."""
    made = ov.Tensor(kind, ov.Shape(shape))
    made.data.reshape(-1).view(np.uint8)[:] = bits
    return made


class OpenVino:
    formats = tuple(FORMATS)
    version = ov.__version__.split("-")[0]

    def __init__(self, threads: int) -> None:
        self.core = ov.Core()
        self.threads = threads

    def prepare(self, fmt: str, n: int, k: int, copies: Callable[[int], int]) -> Product:
        kind, bits, middle, dynamic = FORMATS[fmt]
        group = k if "rows" in fmt else GROUP
        if k % group:
            raise Lacks(f"columns must be a multiple of {group}")
        weight = normal(n, k)
        grouped = weight.reshape(len(weight), k // group, group)
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        scale = np.abs(grouped).max(2, keepdims=True) / (-low if bits == 2 else high)
        codes = np.clip(np.rint(grouped / scale), low, high).astype(np.int8) + middle
        bytes_ = repeated(packed(codes, bits).reshape(len(weight), -1), n).reshape(-1)
        scale, shape = repeated(scale.astype(np.float16), n), (n, *codes.shape[1:])
        size = n * k * bits // 8 + scale.size * 2 + (1 if middle else 0)
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
        }
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = min(group, GROUP) if dynamic else 0
        if dynamic:
            config["INFERENCE_PRECISION_HINT"] = (
                "f32"  # in bf16, its choice for this machine, x is never rounded to 8 bits
            )
        requests = []
        for _ in range(copies(size)):
            model = self.model(kind, shape, bytes_, scale, middle, n, k)
            requests.append(self.core.compile_model(model, "CPU", config).create_infer_request())

        def calls(x: Floats) -> list[Callable[[], Any]]:
            for request in requests:
                request.set_input_tensor(ov.Tensor(x, shared_memory=True))
            return [lambda request=request: (request.infer(), request)[1] for request in requests]

        return Product(
            size, "int8" if dynamic else "bf16", weight, calls, lambda request: request.get_output_tensor().data
        )

    def model(self, kind: ov.Type, shape: Any, bits: Any, scale: Any, middle: int, n: int, k: int) -> ov.Model:
        x = op.parameter([-1, k], np.float32, name="x")
        w = op.convert(op.constant(tensor(kind, shape, bits)), np.float16)
        if middle:
            zero = op.constant(tensor(kind, (1,), packed(np.full(8, middle), kind.bitwidth)[:1]))
            w = op.subtract(w, op.convert(zero, np.float16))
        w = op.multiply(w, op.constant(scale))
        w = op.convert(op.reshape(w, np.array([n, k]), False), np.float32)
        return ov.Model([op.matmul(x, w, False, True)], [x], "product")


load = OpenVino
