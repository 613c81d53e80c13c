"""Libraries that round with the help of calibration text: AutoRound, GPTQModel and llm-compressor, each with its own default options.

All get the windows that ours are given.  What they leave alone, embedding and output matrix, is rounded as for the others
(quality_modules).  They run in .venv-peers-calibrated, because they want other versions of transformers than the rest.
"""

from __future__ import annotations

import json
import os
import tempfile
from abc import abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its default on two cores is fewer than it asks for itself

import torch
from quality_modules import Modules, linears, packed
from torch import Tensor, nn


def wanted(spec: str) -> tuple[int, int]:
    """(bits, group) of "int4/g64"; group 0 for "int8/row"."""
    width, block = spec.split("/")
    return int(width.removeprefix("int")), 0 if block == "row" else int(block.removeprefix("g"))


class Calibrated(Modules):
    """Symmetric integers with a 16-bit scale for every group or row."""

    package: str
    specs = (*(f"int{bits}/g{group}" for bits in (4, 3, 2) for group in (64, 32)), "int4/row")

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        from transformers import AutoTokenizer

        self.folder, self.version, self.formats = folder, version(self.package), list(self.specs)
        self.calibration: list[list[int]] = json.loads(Path(job["calibration"]).read_text())
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        super().__init__(folder, job)

    def change(self, model: nn.Module, name: str) -> int:
        bits, group = wanted(name)
        layers = linears(model.model)
        total = 0
        for _, _, layer in layers:
            if group and layer.in_features % group:
                raise ValueError(f"groups of {group} do not divide {layer.in_features} inputs")
            total += packed(layer.weight.shape, bits, group or layer.in_features, 2)
        self.fit(model, bits, group)
        return total

    @abstractmethod
    def fit(self, model: nn.Module, bits: int, group: int) -> None:
        """Leave the linear layers of the blocks with weights of `bits` bits, as floats or behind the library's own forward."""


def half(scale: Tensor) -> Tensor:
    """A scale as it is stored."""
    return scale.half().float()


class AutoRound(Calibrated):
    """Roundings and clippings learned by signed gradients over 200 steps a block."""

    package = "auto-round"

    def fit(self, model: nn.Module, bits: int, group: int) -> None:
        from auto_round import AutoRound as Quantizer

        windows = [torch.tensor([window]) for window in self.calibration]
        with torch.enable_grad():
            Quantizer(
                model, self.tokenizer, bits=bits, group_size=group or -1, sym=True, dataset=windows, nsamples=len(windows),
                seqlen=min(len(window) for window in self.calibration), device_map="cpu", amp=False, enable_torch_compile=False,
            ).quantize()  # fmt: skip
        for _, _, layer in linears(model.model):
            scale = layer.scale.float()
            wide = layer.in_features // scale.shape[1]
            codes = (layer.weight.data.view(*scale.shape, wide) / scale.unsqueeze(-1)).round()
            layer.weight.data = (codes * half(scale).unsqueeze(-1)).view(layer.weight.shape)


class GPTQModel(Calibrated):
    """GPTQ as GPTQModel does it by default (groups ordered by activity, no act-order)."""

    package = "gptqmodel"
    specs = ("int8/row", "int8/g64", "int8/g32", *Calibrated.specs)

    def fit(self, model: nn.Module, bits: int, group: int) -> None:
        from gptqmodel import BACKEND, QuantizeConfig
        from gptqmodel import GPTQModel as Library

        config = QuantizeConfig(bits=bits, group_size=group or -1, sym=True, act_group_aware=group > 0)
        made = Library.load(str(self.folder), config, device="cpu", dtype=torch.float32)
        made.quantize([{"input_ids": w, "attention_mask": [1] * len(w)} for w in self.calibration], batch_size=1)
        with tempfile.TemporaryDirectory() as folder:
            made.save(folder)
            loaded = Library.load(folder, device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16)
        found = dict(loaded.model.model.named_modules())
        for name, layer in model.model.named_modules():
            if isinstance(layer, nn.Linear):
                theirs = found[name]
                theirs.scales = half(theirs.scales)
                layer.weight.data = theirs.dequantize_weight().T.float().contiguous()


class LLMCompressor(Calibrated):
    """GPTQ as llm-compressor's modifier does it by default."""

    package = "llmcompressor"
    specs = ("int8/row", "int8/g64", *Calibrated.specs)

    def fit(self, model: nn.Module, bits: int, group: int) -> None:
        from datasets import Dataset
        from llmcompressor import oneshot
        from llmcompressor.modifiers.gptq import GPTQModifier

        weights: dict[str, Any] = {"num_bits": bits, "type": "int", "symmetric": True}
        weights |= {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        rule = GPTQModifier(ignore=["lm_head"], config_groups={"all": {"targets": ["Linear"], "weights": weights}})
        columns = {"input_ids": self.calibration, "attention_mask": [[1] * len(w) for w in self.calibration]}
        oneshot(
            model=model, tokenizer=self.tokenizer, dataset=Dataset.from_dict(columns), recipe=rule,
            max_seq_length=max(map(len, self.calibration)), num_calibration_samples=len(self.calibration),
        )  # fmt: skip
        for module in model.modules():
            scale = getattr(module, "weight_scale", None)
            if scale is not None:
                scale.data = half(scale.data)
