"""ggml's matrix product through the shared libraries of llama-cpp-python, with and without the buffers that rearrange weights."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from run_matmul import Floats, Lacks, Product, normal, repeated

PLAIN = "plain"
# ggml's name of a type -> its number, which files rely on
TYPES = {
    "q1_0": 41, "iq1_s": 19, "tq1_0": 34, "iq1_m": 29, "iq2_xxs": 16, "tq2_0": 35, "q2_0": 42, "q2_K": 10, "iq3_xxs": 18, "q3_K": 11,
    "iq4_xs": 23, "mxfp4": 39, "nvfp4": 40, "q4_0": 2, "iq4_nl": 20, "q4_K": 12, "q5_0": 6, "q5_K": 13, "q6_K": 14, "q8_0": 8, "bf16": 30,
}  # fmt: skip
FLOATS = {"bf16": "bf16"}
"""Types whose products are not of 8-bit integers."""
GRAPH_BYTES = 1 << 20


class InitParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


def functions() -> Any:
    """The C functions that are used, with their types, out of the three libraries."""
    found = importlib.util.find_spec("llama_cpp")
    assert found is not None and found.origin is not None, "llama-cpp-python is installed where this runs"
    folder = Path(found.origin).parent / "lib"
    libraries = [
        ctypes.CDLL(str(folder / f"lib{name}.so"), ctypes.RTLD_GLOBAL) for name in ("ggml-base", "ggml-cpu", "ggml")
    ]
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ggml_init": (c_void_p, [InitParams]),
        "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
        "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
        "ggml_new_graph": (c_void_p, [c_void_p]),
        "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
        "ggml_type_name": (c_char_p, [c_int]),
        "ggml_row_size": (c_size_t, [c_int, c_int64]),
        "ggml_quantize_requires_imatrix": (c_bool, [c_int]),
        "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
        "ggml_backend_cpu_init": (c_void_p, []),
        "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int]),
        "ggml_backend_get_device": (c_void_p, [c_void_p]),
        "ggml_backend_dev_backend_reg": (c_void_p, [c_void_p]),
        "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
        "ggml_backend_cpu_buffer_type": (c_void_p, []),
        "ggml_backend_buft_name": (c_char_p, [c_void_p]),
        "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
        "ggml_backend_buffer_free": (None, [c_void_p]),
        "ggml_free": (None, [c_void_p]),
        "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
        "ggml_backend_tensor_get": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
        "ggml_backend_dev_supports_op": (c_bool, [c_void_p, c_void_p]),
        "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
    }
    holder = type("Functions", (), {})()
    for name, (result, arguments) in signatures.items():
        function = next(getattr(library, name) for library in libraries if hasattr(library, name))
        function.restype, function.argtypes = result, arguments
        setattr(holder, name, function)
    return holder


class Held:
    """Tensors of one context in one buffer; freed with the object."""

    def __init__(self, c: Any) -> None:
        self.c = c
        self.context = c.ggml_init(InitParams(GRAPH_BYTES, None, True))
        self.buffer: Any = None

    def allocate(self, kind: Any) -> None:
        self.buffer = self.c.ggml_backend_alloc_ctx_tensors_from_buft(self.context, kind)
        if not self.buffer:
            raise Lacks("the buffer could not be allocated")

    def __del__(self) -> None:
        if self.buffer:
            self.c.ggml_backend_buffer_free(self.buffer)
        self.c.ggml_free(self.context)


class Ggml:
    late = ("iq", "q2_0", "nvfp4", "q5")
    version = f"llama-cpp-python {metadata.version('llama_cpp_python')}"

    def __init__(self, threads: int) -> None:
        self.c = functions()
        self.backend = self.c.ggml_backend_cpu_init()
        self.c.ggml_backend_cpu_set_n_threads(self.backend, threads)
        self.device = self.c.ggml_backend_get_device(self.backend)
        self.buffers = {PLAIN: self.c.ggml_backend_cpu_buffer_type()} | self.extra_buffers()
        known = [name for name, number in TYPES.items() if self.c.ggml_type_name(number) == name.encode()]
        self.formats = [f"{name} {buffer}" for name in known for buffer in self.buffers]

    def extra_buffers(self) -> dict[str, Any]:
        """The kinds of buffers that rearrange weights for the processor, such as repack and amx."""
        registry = self.c.ggml_backend_dev_backend_reg(self.device)
        address = self.c.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        if not address:
            return {}
        listed = ctypes.CFUNCTYPE(ctypes.POINTER(c_void_p), c_void_p)(address)(self.device)
        found, index = {}, 0
        while listed[index]:
            name = self.c.ggml_backend_buft_name(listed[index]).decode().lower().removeprefix("cpu_")
            found[name] = listed[index]
            index += 1
        return found

    def prepare(self, fmt: str, n: int, k: int, copies: Callable[[int], int]) -> Product:
        name, place = fmt.split()
        kind, buffer = TYPES[name], self.buffers[place]
        weight = normal(n, k)
        if name.startswith("tq"):
            weight = np.sign(np.rint(weight * k**0.5)) * np.float32(k**-0.5)  # ternary formats are for such weights
        if name == "q1_0":
            weight = np.where(weight < 0, -1, 1).astype(np.float32) * np.float32(k**-0.5)
        size = int(self.c.ggml_row_size(kind, k)) * n
        if place != PLAIN and not self.supported(kind, buffer, n, k):
            raise Lacks(f"no {place} form of {name}")
        codes = repeated(self.quantized(kind, weight), n)
        held = []
        for _ in range(copies(size)):
            one = Held(self.c)
            tensor = self.c.ggml_new_tensor_2d(one.context, kind, k, n)
            one.allocate(buffer)
            self.c.ggml_backend_tensor_set(tensor, codes.ctypes.data, 0, size)
            held.append((one, tensor))

        def calls(x: Floats) -> list[Callable[[], Any]]:
            made = []
            for owner, tensor in held:
                one = Held(self.c)
                rows = self.c.ggml_new_tensor_2d(one.context, 0, k, len(x))
                y = self.c.ggml_mul_mat(one.context, tensor, rows)
                graph = self.c.ggml_new_graph(one.context)
                self.c.ggml_build_forward_expand(graph, y)
                one.allocate(self.buffers[PLAIN])
                self.c.ggml_backend_tensor_set(rows, x.ctypes.data, 0, x.nbytes)
                made.append(self.call(graph, (owner, one, y, len(x), n)))
            return made

        return Product(size, FLOATS.get(name, "int8"), weight, calls, self.values)

    def call(self, graph: Any, result: Any) -> Callable[[], Any]:
        compute, backend = self.c.ggml_backend_graph_compute, self.backend

        def run() -> Any:
            if compute(backend, graph) != 0:
                raise RuntimeError("ggml could not compute the product")
            return result

        return run

    def values(self, result: Any) -> Floats:
        _, _, y, m, n = result
        out = np.empty((m, n), np.float32)
        self.c.ggml_backend_tensor_get(y, out.ctypes.data, 0, out.nbytes)
        return out

    def supported(self, kind: int, buffer: Any, n: int, k: int) -> bool:
        """Whether weights of a type can be multiplied out of a kind of buffer."""
        one, other = Held(self.c), Held(self.c)
        tensor = self.c.ggml_new_tensor_2d(one.context, kind, k, n)
        one.allocate(buffer)
        rows = self.c.ggml_new_tensor_2d(other.context, 0, k, 1)
        return bool(self.c.ggml_backend_dev_supports_op(self.device, self.c.ggml_mul_mat(other.context, tensor, rows)))

    def quantized(self, kind: int, weight: Floats) -> Any:
        """The rows rounded by ggml, bytes [rows, bytes a row]."""
        rows, k = weight.shape
        codes = np.empty((rows, int(self.c.ggml_row_size(kind, k))), np.uint8)
        importance = np.ones(k, np.float32) if self.c.ggml_quantize_requires_imatrix(kind) else None
        pointer = None if importance is None else importance.ctypes.data
        written = self.c.ggml_quantize_chunk(kind, weight.ctypes.data, codes.ctypes.data, 0, rows, k, pointer)
        if written != codes.nbytes:
            raise Lacks("it has no rounding to this type")
        return codes


load = Ggml
