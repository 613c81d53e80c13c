"""ONNX Runtime's MatMulNBits with 8-bit activations (accuracy_level 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from run_matmul import Floats, Lacks, Product, normal, repeated

GROUP = 128


class OnnxRuntime:
    formats = ("2 bits g128", "4 bits g128", "4 bits g32", "8 bits g128")
    version = onnxruntime.__version__

    def __init__(self, threads: int) -> None:
        # one pool for the sessions of all copies, as for the layers of a model
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        self.options = onnxruntime.SessionOptions()
        self.options.use_per_session_threads = False

    def prepare(self, fmt: str, n: int, k: int, copies: Callable[[int], int]) -> Product:
        bits, group = int(fmt[0]), int(fmt.split("g")[-1])
        if k % group:
            raise Lacks(f"columns must be a multiple of {group}")
        weight = normal(n, k)
        grouped = weight.reshape(len(weight), k // group, group)
        middle = 1 << (bits - 1)
        scale = np.abs(grouped).max(2) / (middle if bits == 2 else middle - 1)
        codes = (np.clip(np.rint(grouped / scale[:, :, None]), -middle, middle - 1) + middle).astype(np.uint8)
        each = 8 // bits
        packed = np.zeros((len(weight), k // group, group // each), np.uint8)
        for place in range(each):
            packed |= codes[:, :, place::each] << (bits * place)
        packed, scales = repeated(packed, n), repeated(scale.astype(np.float32), n)
        size = packed.nbytes + scales.nbytes
        try:
            sessions = [self.session(bits, group, n, k, packed, scales) for _ in range(copies(size))]
        except Exception as reason:
            raise Lacks(str(reason).splitlines()[0]) from reason

        def calls(x: Floats) -> list[Callable[[], Any]]:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(x)
            made = []
            for session in sessions:
                binding = session.io_binding()
                binding.bind_ortvalue_input("x", value)
                binding.bind_ortvalue_output(
                    "y", onnxruntime.OrtValue.ortvalue_from_shape_and_type((len(x), n), np.float32)
                )
                made.append(lambda session=session, binding=binding: (session.run_with_iobinding(binding), binding)[1])
            return made

        return Product(size, "int8", weight, calls, lambda binding: binding.copy_outputs_to_cpu()[0])

    def session(self, bits: int, group: int, n: int, k: int, packed: Any, scales: Any) -> onnxruntime.InferenceSession:
        node = helper.make_node(
            "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft",
            K=k, N=n, bits=bits, block_size=group, accuracy_level=4,
        )  # fmt: skip
        graph = helper.make_graph(
            [node],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", k])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", n])],
            [numpy_helper.from_array(packed, "codes"), numpy_helper.from_array(scales, "scales")],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnxruntime.InferenceSession(model.SerializeToString(), self.options, providers=["CPUExecutionProvider"])


load = OnnxRuntime
