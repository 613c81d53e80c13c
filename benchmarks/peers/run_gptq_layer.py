"""GPTQ of one layer by another library, for `benchmarks/gptq_layer.py`. Runs in .venv-peers-calibrated.

Started as `python run_gptq_layer.py LIBRARY '{"threads": T}'`.  For every line `{"n": N, "k": K, "bits": B, "group": G, "windows": W,
"length": L}` it draws `gptq_layer.problem`, and answers `{"hessian": s, "quantize": s, "error": e}`: seconds for taking in all windows and
for rounding the weight, and the squared error of the layer's output over its square.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its default on two cores is fewer than it asks for itself

import torch
from protocol import serve
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1]))
from gptq_layer import output_error, problem

Run = Callable[[nn.Linear, list[Tensor], int, int], tuple[float, float, Tensor]]


def gptqmodel() -> tuple[str, Run]:
    """GPTQModel's task for one module, symmetric, without act-order (its default order of groups by activity)."""
    from gptqmodel import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    def run(layer: nn.Linear, windows: list[Tensor], bits: int, group: int) -> tuple[float, float, Tensor]:
        task = GPTQ(layer, QuantizeConfig(bits=bits, group_size=group, sym=True))
        task.quantizer.configure(perchannel=True)
        started = time.perf_counter()
        for window in windows:
            task.add_batch(window[None], layer.weight[:1, :1])
        between = time.perf_counter()
        made = task.quantize()[0]
        return between - started, time.perf_counter() - between, made.float()

    return version("gptqmodel"), run


def llm_compressor() -> tuple[str, Run]:
    """The functions behind llm-compressor's GPTQ modifier, with its default scales (of the largest magnitude)."""
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils import calculate_qparams
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
    from llmcompressor.modifiers.gptq.helpers import accumulate_hessian, make_empty_hessian

    def run(layer: nn.Linear, windows: list[Tensor], bits: int, group: int) -> tuple[float, float, Tensor]:
        how = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=group)
        started = time.perf_counter()
        hessian, count = make_empty_hessian(layer), torch.zeros(1)
        for window in windows:
            hessian, count = accumulate_hessian(window[None], layer, hessian, count)
        between = time.perf_counter()
        blocks = layer.weight.view(layer.out_features, -1, group)
        scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), how)
        made, _, _ = quantize_weight(
            weights=layer.weight[None].clone(), hessians=(hessian / count)[None], scale=scale[None], zero_point=zero[None],
            global_scale=None, quant_args=how,
        )  # fmt: skip
        return between - started, time.perf_counter() - between, made[0].float()

    return version("llmcompressor"), run


LIBRARIES = {"gptqmodel": gptqmodel, "llm-compressor": llm_compressor}


def main() -> None:
    torch.set_num_threads(int(json.loads(sys.argv[2])["threads"]))
    found, run = LIBRARIES[sys.argv[1]]()

    def answer(line: str) -> dict[str, Any]:
        asked = json.loads(line)
        weight, windows = problem(asked["n"], asked["k"], asked["windows"], asked["length"])
        layer = nn.Linear(asked["k"], asked["n"], bias=False)
        layer.weight.data = weight.clone()
        with torch.no_grad():
            hessian, quantize, made = run(layer, windows, asked["bits"], asked["group"])
        return {"hessian": hessian, "quantize": quantize, "error": output_error(weight, made, windows)}

    serve({"engine": sys.argv[1], "version": found}, answer)


if __name__ == "__main__":
    main()
