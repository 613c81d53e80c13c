"""What bitsandbytes computes on a CPU, for `tests/quantize/test_against_bitsandbytes.py`, which reads the file and needs no bitsandbytes.

    .venv-peers/bin/python benchmarks/peers/golden_bitsandbytes.py tests/quantize/bitsandbytes.safetensors

Names in the file are FAMILY.CASE.WHAT.  Every number that LLM.int8() gets is one of fp16, to which the library rounds its inputs.
"""

from __future__ import annotations

import datetime
import platform
import sys
from importlib import metadata

import bitsandbytes
import torch
from bitsandbytes import functional
from safetensors.torch import save_file
from torch import Tensor

VERSION, RELEASED = "0.50.2", "2026-08-27"
"""The release the tests speak of, and the date of the files in its wheel."""

THRESHOLD = 6.0
Tensors = dict[str, Tensor]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def int8_inputs(generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """x [T, K], w [N, K] and bias [N] of each case, all below the threshold but where the case says so."""

    def pair(t: int, n: int, k: int, outliers: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        x, w = normal(generator, t, k).clamp(-5, 5), normal(generator, n, k)
        x[:, outliers] = x[:, outliers].sign() * (8 + 40 * x[:, outliers].abs())
        return x, w * torch.exp(normal(generator, n, 1))

    mixed = pair(6, 20, 64)
    mixed[0][0, 11] = 30.0  # an outlier in the first row alone, and in the others the largest of their ordinary values
    mixed[0][1:, 11] = torch.tensor([5.9, 5.5, -5.75, 5.25, -5.99])
    return {
        "one row": (*pair(1, 18, 72, (5, 40)), None),
        "rows": (*pair(7, 13, 150, (0, 60, 149)), normal(generator, 13)),
        "no outliers": (*pair(5, 11, 129), None),
        "mixed column": (*mixed, None),
    }


def halves() -> Tensor:
    """Rows whose step is m: the largest weight is 127 m, the others lie halfway between two codes, (n + 1/2) m."""
    codes = torch.cat((torch.tensor([127.0]), torch.arange(-126, 127, 2) + 0.5))
    return codes * torch.tensor([1.0, 0.25, 3.0, 5.0, 7.0, 6.0, 2.5])[:, None]


def linear(x: Tensor, w: Tensor, bias: Tensor | None, threshold: float) -> Tensor:
    layer = bitsandbytes.nn.Linear8bitLt(
        w.shape[1], w.shape[0], bias=bias is not None, has_fp16_weights=False, threshold=threshold
    )
    layer.load_state_dict({"weight": w.float()} | ({} if bias is None else {"bias": bias.to(x.dtype)}))
    return layer.to("cpu").eval()(x).contiguous()


def int8_weight(w: Tensor) -> Tensors:
    codes, absmax, _ = functional.int8_vectorwise_quant(w.half())
    return {"w": w.half(), "w_codes": codes, "w_absmax": absmax}


def int8_case(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensors:
    x, w = x.half(), w.half()
    x_codes, x_scale, columns = functional.int8_vectorwise_quant(x.clone(), threshold=THRESHOLD)
    assert columns is not None, "a threshold was given"
    found = int8_weight(w) | {
        "x": x, "x_codes": x_codes, "x_absmax": x_scale, "columns": columns,
        "y": linear(x.float(), w, bias, THRESHOLD), "y_fp16": linear(x, w, bias, THRESHOLD),
        "y_plain": linear(x.float(), w, bias, 0.0),
    }  # fmt: skip
    return found if bias is None else found | {"bias": bias}


def nf4_inputs(generator: torch.Generator) -> Tensors:
    zeros = normal(generator, 4, 128)
    zeros[2, 64:] = 0.0
    levels = functional.get_4bit_type("nf4", device="cpu")
    # In blocks whose largest weight is m: m times every midpoint of two levels, and the numbers beside it.
    middles = (levels[1:] + levels[:-1]) / 2
    blocks = []
    for m in (1.0, 0.125, 32.0, 0.7713, 3.1416, 11.0):
        at = middles * m
        beside = [torch.nextafter(at, at.new_full((), far)) for far in (-torch.inf, torch.inf)]
        blocks.append(torch.cat((torch.tensor([m, -m / 2, m / 3]), at, *beside, levels * m)))
    return {
        "zero block": zeros,
        "odd": normal(
            generator, 5, 33
        ),  # 165 numbers: blocks run over the ends of rows, the last is short, a nibble is left over
        "fp16": normal(generator, 3, 128).half(),
        "bf16": normal(generator, 3, 128).bfloat16(),
        "midpoints": torch.stack(blocks),
        "double": (normal(generator, 257, 64) * torch.exp(0.5 * normal(generator, 257, 1))).half(),
    }


def nf4_case(w: Tensor) -> Tensors:
    packed, state = functional.quantize_4bit(w, blocksize=64, quant_type="nf4")
    values = functional.dequantize_4bit(packed, state)
    found = {"w": w, "packed": packed.reshape(-1), "absmax": state.absmax}
    return found | ({"values": values} if w.numel() < 4096 else {})


def double_case(w: Tensor) -> Tensors:
    """The scales quantized to 8 bits themselves."""
    plain, _ = functional.quantize_4bit(w, blocksize=64, quant_type="nf4")
    packed, state = functional.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert torch.equal(packed, plain), "the scales are quantized after the weights"
    scale = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    codes = torch.stack((packed.reshape(-1) >> 4, packed.reshape(-1) & 15), 1).long()
    values = (state.code[codes].reshape(-1, 64) * scale[:, None]).to(w.dtype).reshape(w.shape)
    assert torch.equal(functional.dequantize_4bit(packed, state), values), "values are level x scale"
    return {
        "scale_codes": state.absmax, "scale_offset": state.offset.reshape(1), "scale_absmax": state.state2.absmax,
        "scale_levels": state.state2.code, "scale": scale,
    }  # fmt: skip


def main(out: str) -> None:
    installed = metadata.version("bitsandbytes")
    if installed != VERSION:
        sys.exit(f"the tests state what bitsandbytes {VERSION} computes; {installed} is installed")
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    found: Tensors = {"nf4.levels": functional.get_4bit_type("nf4", device="cpu")}
    for case, inputs in int8_inputs(generator).items():
        found |= {f"int8.{case}.{what}": value for what, value in int8_case(*inputs).items()}
    found |= {f"int8.halves.{what}": value for what, value in int8_weight(halves()).items()}
    for case, w in nf4_inputs(generator).items():
        found |= {f"nf4.{case}.{what}": value for what, value in nf4_case(w).items()}
    found |= {f"nf4.double.{what}": value for what, value in double_case(found["nf4.double.w"]).items()}
    about = {
        "bitsandbytes": VERSION,
        "bitsandbytes_released": RELEASED,
        "torch": torch.__version__,
        "device": f"cpu, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "made": datetime.date.today().isoformat(),
        "made_by": "benchmarks/peers/golden_bitsandbytes.py",
    }
    save_file({name: value.contiguous() for name, value in found.items()}, out, about)


if __name__ == "__main__":
    main(sys.argv[1])
