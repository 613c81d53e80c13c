"""Libraries that quantize nn.Linear in a transformers model: torchao, quanto, HQQ and bitsandbytes, each with its own recommended options.

They leave embedding and output matrix in 16 bits or quantize them apart.  So that all spend alike, these are rounded here to rows of 8-bit
integers with a 16-bit scale; what a library stores for the other layers is counted as its own packed layout would hold it.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def rows_of_int8(weight: Tensor) -> Tensor:
    """Nearest of 255 levels a row, scales in fp16."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).half().float().clamp(min=2.0**-24)
    return (weight / scale).round().clamp(-127, 127) * scale


class Modules(ABC):
    """A float32 transformers model; `change` quantizes the linear layers of its blocks and says how many bytes they take."""

    formats: list[str]
    version: str

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(int(job["threads"]))
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            for table in {
                id(t): t for t in (self.model.get_input_embeddings(), self.model.get_output_embeddings())
            }.values():
                table.weight.copy_(rows_of_int8(table.weight))

    @abstractmethod
    def change(self, model: nn.Module, name: str) -> int:
        """Quantize the linear layers of the blocks of a causal language model in place; bytes as packed."""

    @torch.no_grad()
    def run(self, name: str, windows: list[list[int]]) -> tuple[int, np.ndarray]:
        """Bytes of all tensors, and the logits of every token of the windows but their last ones."""
        model = copy.deepcopy(self.model)
        tables = {t.weight.data_ptr(): t.weight for t in (model.get_input_embeddings(), model.get_output_embeddings())}
        stored = sum(w.numel() + 2 * w.shape[0] for w in tables.values())
        stored += sum(2 * p.numel() for p in model.parameters() if p.ndim == 1)  # gains, 16 bits
        stored += self.change(model, name)
        parts = [model(torch.tensor([window[:-1]])).logits[0].float().numpy() for window in windows]
        return stored, np.concatenate(parts)


def linears(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """(parent, name, layer) of every linear layer."""
    return [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear)
    ]


def replaced(model: nn.Module, quantize: Callable[[Tensor], tuple[Tensor, int]]) -> int:
    """Every linear layer's weight by what a function makes of it and the bytes of that."""
    total = 0
    for _, _, layer in linears(model):
        value, size = quantize(layer.weight.data)
        layer.weight.data = value
        total += size
    return total


def packed(shape: torch.Size, bits: int, group: int, of_group: int) -> int:
    """Bytes of codes and of `of_group` bytes for every group."""
    return shape[0] * (-(-shape[1] * bits // 8) + of_group * -(-shape[1] // group))


class TorchAO(Modules):
    """Weight-only integers; scales alone by HQQ's search, and scales with zero points."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        import torchao  # noqa: F401

        super().__init__(folder, job)
        self.version = version("torchao")
        ways = ("hqq", "affine")
        self.formats = ["int8", *(f"int{bits}/g{g}, {way}" for bits in (6, 4, 3, 2) for g in (64, 32) for way in ways)]

    def change(self, model: nn.Module, name: str) -> int:
        from torchao.quantization import IntxWeightOnlyConfig, quantize_
        from torchao.quantization.granularity import PerAxis, PerGroup
        from torchao.quantization.quant_primitives import MappingType
        from torchao.quantization.quantize_.workflows import IntxChooseQParamsAlgorithm

        way = name.split(", ")[-1]
        spec = name.split(", ")[0]
        bits, group = int(spec.split("/")[0].removeprefix("int")), int(spec.split("/g")[1]) if "/g" in spec else 0
        total = 0
        for _, _, layer in linears(model.model):
            wide = group or layer.in_features
            if layer.in_features % wide:
                raise ValueError(f"groups of {wide} do not divide {layer.in_features} inputs")
            zero = 1 if way == "affine" else 0
            total += packed(layer.weight.shape, bits, wide, 2 + zero)
        algorithm = IntxChooseQParamsAlgorithm.HQQ_SCALE_ONLY if way == "hqq" else IntxChooseQParamsAlgorithm.AFFINE
        config = IntxWeightOnlyConfig(
            weight_dtype=getattr(torch, f"int{bits}"),
            granularity=PerGroup(group) if group else PerAxis(0),
            mapping_type=MappingType.ASYMMETRIC if way == "affine" else MappingType.SYMMETRIC,
            intx_choose_qparams_algorithm=algorithm,
        )
        quantize_(model.model, config)
        return total


class Quanto(Modules):
    """Symmetric int8, and int4 and int2 in groups of up to 128 with zero points, as `optimum.quanto.quantize` makes them."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        from optimum import quanto  # noqa: F401

        super().__init__(folder, job)
        self.version, self.formats = version("optimum-quanto"), ["qint8", "qint4", "qint2"]

    def change(self, model: nn.Module, name: str) -> int:
        from optimum import quanto

        bits = int(name.removeprefix("qint"))
        quanto.quantize(model.model, weights=getattr(quanto, name))
        quanto.freeze(model.model)
        total = 0
        for layer in model.model.modules():
            weight = getattr(layer, "weight", None)
            if isinstance(weight, quanto.QTensor):
                group = getattr(weight, "_group_size", None) or weight.shape[1]
                # a 16-bit scale, and a 16-bit shift where there are zero points
                total += packed(weight.shape, bits, group, 2 if bits == 8 else 4)
        return total


class HQQ(Modules):
    """Half-quadratic quantization with 16-bit scales and zero points in groups of 64."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        from hqq.core.quantize import Quantizer

        super().__init__(folder, job)
        self.quantizer = Quantizer
        self.version, self.formats = version("hqq"), [f"{bits} bits, g{g}" for bits in (8, 4, 3, 2) for g in (64, 32)]

    def change(self, model: nn.Module, name: str) -> int:
        bits, group = int(name.split()[0]), int(name.split("g")[-1])

        def quantized(weight: Tensor) -> tuple[Tensor, int]:
            if weight.numel() % group or weight.shape[1] % group:
                raise ValueError(f"groups of {group} do not divide {weight.shape[1]} inputs")
            codes, meta = self.quantizer.quantize(
                weight, nbits=bits, channel_wise=True, group_size=group, optimize=True, axis=1, device="cpu",
                compute_dtype=torch.float32, bitpack=False,
            )  # fmt: skip
            scale, zero = meta["scale"].half().float(), meta["zero"].half().float()
            value = ((codes.float().reshape(-1, group) - zero.reshape(-1, 1)) * scale.reshape(-1, 1)).reshape(
                weight.shape
            )
            return value, packed(weight.shape, bits, group, 4)

        return replaced(model.model, quantized)


class BitsAndBytes(Modules):
    """NF4 and FP4 in blocks of 64, scales quantized to 8 bits in blocks of 256 or left in 32, and LLM.int8's rows."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        import bitsandbytes

        super().__init__(folder, job)
        self.library = bitsandbytes
        self.version, self.formats = version("bitsandbytes"), ["nf4", "nf4, double", "fp4"]

    def change(self, model: nn.Module, name: str) -> int:
        kind, double = name.split(",")[0], "double" in name
        functional = self.library.functional

        def quantized(weight: Tensor) -> tuple[Tensor, int]:
            codes, state = functional.quantize_4bit(
                weight.contiguous(), blocksize=64, quant_type=kind, compress_statistics=double
            )
            blocks = -(-weight.numel() // 64)
            size = weight.numel() // 2 + (blocks + 4 * -(-blocks // 256) if double else 4 * blocks)
            return functional.dequantize_4bit(codes, state).float().reshape(weight.shape), size

        return replaced(model.model, quantized)
