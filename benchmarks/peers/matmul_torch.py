"""torch's own products with 4- and 8-bit weights on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from run_matmul import Floats, Lacks, Product, normal, repeated

GROUP = 128


def floats(y: torch.Tensor) -> Any:
    """A result as numpy."""
    return y.float().numpy()


def int8_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 codes [n, k], float32 scales [n]), symmetric."""
    scale = weight.abs().amax(1) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


class Torch:
    """Formats: `_int_mm` multiplies codes alone, with neither rounding of x nor scales; `int8 dynamic` rounds x to 8 bits (FBGEMM or
    oneDNN); `int8pack` and `int4pack` take x in bf16."""

    formats = ("int8 _int_mm", "int8 dynamic onednn", "int8 dynamic x86", "int8pack bf16", "int4pack g128 bf16")
    version = torch.__version__

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def prepare(self, fmt: str, n: int, k: int, copies: Callable[[int], int]) -> Product:
        weight = normal(n, k)
        if fmt == "int4pack g128 bf16":
            return self.int4pack(weight, n, copies)
        codes, scale = (torch.from_numpy(repeated(one.numpy(), n)) for one in int8_rows(torch.from_numpy(weight)))
        size = n * k + 4 * n
        if fmt.startswith("int8 dynamic"):
            return self.dynamic(fmt.split()[-1], weight, codes, scale, copies(size))
        held = [codes.clone() for _ in range(copies(size))]
        if fmt == "int8pack bf16":
            narrow = scale.bfloat16()

            def packed(x: Floats) -> list[Callable[[], Any]]:
                rows = torch.from_numpy(x).bfloat16()
                return [lambda w=w: torch._weight_int8pack_mm(rows, w, narrow) for w in held]

            return Product(size, "bf16", weight, packed, floats)

        def plain(x: Floats) -> list[Callable[[], Any]]:
            rows, factor = int8_rows(torch.from_numpy(x))
            self.factors = factor[:, None] * scale[None, :]
            transposed = [w.t() for w in held]
            return [lambda w=w: torch._int_mm(rows, w) for w in transposed]

        return Product(size, "int8", weight, plain, lambda y: floats(y * self.factors))

    def dynamic(self, engine: str, weight: Floats, codes: torch.Tensor, scale: torch.Tensor, copies: int) -> Product:
        if engine not in torch.backends.quantized.supported_engines:
            raise Lacks(f"torch was built without {engine}")
        torch.backends.quantized.engine = engine
        zero = torch.zeros(len(scale), dtype=torch.long)
        quantized = torch._make_per_channel_quantized_tensor(codes, scale.double(), zero, 0)
        packed = [torch.ops.quantized.linear_prepack(quantized, None) for _ in range(copies)]

        def calls(x: Floats) -> list[Callable[[], Any]]:
            rows = torch.from_numpy(x)
            return [lambda w=w: torch.ops.quantized.linear_dynamic(rows, w) for w in packed]

        return Product(codes.numel() + 4 * len(scale), "int8", weight, calls, floats)

    def int4pack(self, weight: Floats, n: int, copies: Callable[[int], int]) -> Product:
        k = weight.shape[1]
        if k % GROUP or n % 16:
            raise Lacks(f"columns must be a multiple of {GROUP} and rows of 16")
        grouped = torch.from_numpy(weight).reshape(-1, k // GROUP, GROUP)
        rounded = (grouped.abs().amax(2) / 7).bfloat16()
        codes = ((grouped / rounded[:, :, None]).round().clamp(-8, 7) + 8).to(torch.int32).reshape(-1, k)
        codes = torch.from_numpy(repeated(codes.numpy(), n))
        scale = torch.from_numpy(repeated(rounded.float().numpy(), n)).bfloat16()
        scales = torch.stack([scale.t(), torch.zeros_like(scale.t())], -1).contiguous()
        size = n * k // 2 + int(scales.nbytes)
        pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
        packed = [(pack(codes, 1), scales.clone()) for _ in range(copies(size))]

        def calls(x: Floats) -> list[Callable[[], Any]]:
            rows, multiply = torch.from_numpy(x).bfloat16(), torch.ops.aten._weight_int4pack_mm_for_cpu
            return [lambda w=w, s=s: multiply(rows, w, GROUP, s) for w, s in packed]

        return Product(size, "bf16", weight, calls, floats)


load = Torch
