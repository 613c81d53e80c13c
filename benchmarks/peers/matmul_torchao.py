"""torchao's quantized linear layers on CPUs, called eagerly (its users may compile them, which takes minutes for all shapes)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from matmul_torch import floats
from run_matmul import Floats, Lacks, Product, normal, repeated
from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

# name -> (configuration, dtype of x, arithmetic)
LAYERS: dict[str, tuple[Callable[[], Any], torch.dtype, str]] = {
    "int8 dynamic": (Int8DynamicActivationInt8WeightConfig, torch.float32, "int8"),
    "int8 weights bf16": (Int8WeightOnlyConfig, torch.bfloat16, "bf16"),
    "int4 g128 bf16": (
        lambda: PrototypeInt4WeightOnlyConfig(group_size=128, set_inductor_config=False),
        torch.bfloat16,
        "bf16",
    ),
}


class Torchao:
    formats = tuple(LAYERS)
    version = f"{metadata.version('torchao')} (torch {torch.__version__})"

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def prepare(self, fmt: str, n: int, k: int, copies: Callable[[int], int]) -> Product:
        config, dtype, arithmetic = LAYERS[fmt]
        weight = normal(n, k)
        whole = torch.from_numpy(repeated(weight, n)).to(dtype)
        bits = 4 if fmt.startswith("int4") else 8
        if bits == 4 and (k % 128 or n % 16):
            raise Lacks("columns must be a multiple of 128 and rows of 16")
        size = n * k * bits // 8 + (n * k // 128 * 4 if bits == 4 else 4 * n)
        layers = []
        for _ in range(copies(size)):
            layer = torch.nn.Linear(k, n, bias=False, device="meta")
            layer.weight = torch.nn.Parameter(whole.clone(), requires_grad=False)
            quantize_(layer, config())
            layers.append(layer)

        def calls(x: Floats) -> list[Callable[[], Any]]:
            rows = torch.from_numpy(x).to(dtype)
            return [lambda layer=layer: layer(rows) for layer in layers]

        return Product(size, arithmetic, weight, calls, floats)


load = Torchao
