"""llama.cpp's quantizations of a Hugging Face Llama: written as GGUF, quantized by its own function, run by its own engine."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import torch
from safetensors.torch import load_file

FORMATS = {
    "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q4_K_M": 15, "Q4_0": 2, "IQ4_XS": 30, "Q3_K_M": 12, "Q3_K_S": 11, "IQ3_S": 26,
    "IQ3_XXS": 23, "Q2_K": 10, "IQ2_M": 29, "IQ2_S": 28, "IQ2_XS": 20, "IQ2_XXS": 19, "IQ1_M": 31, "IQ1_S": 24,
}  # fmt: skip
"""Names and numbers of `llama_ftype`."""

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Hugging Face's names of a layer's tensors -> GGUF's."""


def name_of(weight: str) -> str:
    """GGUF's name of a tensor."""
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = weight.removesuffix(".weight")
    if stem in whole:
        return f"{whole[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.weight"


class Llama:
    """A checkpoint as float32 GGUF in the work folder, and everything llama.cpp makes of it."""

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        self.version, self.formats = f"llama-cpp-python {llama_cpp.__version__}", list(FORMATS)
        self.config = json.loads((folder / "config.json").read_text())
        self.work, self.threads = Path(job["work"]), int(job["threads"])
        self.plain = self.work / "plain.gguf"
        self.importance = {name_of(key): value for key, value in np.load(job["importance"]).items()}
        llama_cpp.llama_backend_init()
        self._write(folder)

    def _write(self, folder: Path) -> None:
        config = self.config
        heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        writer = gguf.GGUFWriter(str(self.plain), "llama")
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
        writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_file_type(0)
        writer.add_tokenizer_model("no_vocab")
        tied = config.get("tie_word_embeddings")
        tensors = {
            key: value for path in sorted(folder.glob("*.safetensors")) for key, value in load_file(path).items()
        }
        for key, value in tensors.items():
            if tied and key == "lm_head.weight":
                continue
            value = value.float()
            if key.endswith(("q_proj.weight", "k_proj.weight")):
                # this architecture of llama.cpp turns neighbouring channels, transformers those half a head apart
                count = heads if key.endswith("q_proj.weight") else kv_heads
                value = value.reshape(count, 2, -1, value.shape[1]).transpose(1, 2).reshape(value.shape)
            writer.add_tensor(name_of(key), value.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def run(self, name: str, windows: list[list[int]]) -> tuple[int, np.ndarray]:
        """Bytes of all tensors, and the logits of every token of the windows but their last ones."""
        path = self.work / f"{name}.gguf"
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread = FORMATS[name], self.threads
        held = [np.ascontiguousarray(value, np.float32) for value in self.importance.values()]
        table = (llama_cpp.llama_model_imatrix_data * (len(held) + 1))()
        for entry, key, value in zip(table, self.importance, held, strict=False):
            entry.name, entry.size = key.encode(), value.size
            entry.data = value.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = ctypes.cast(table, type(params.imatrix))
        if llama_cpp.llama_model_quantize(str(self.plain).encode(), str(path).encode(), params) != 0:
            raise RuntimeError(f"llama.cpp could not quantize to {name}")
        try:
            stored = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(str(path)).tensors)
            return stored, self._logits(path, windows)
        finally:
            path.unlink()

    def _logits(self, path: Path, windows: list[list[int]]) -> np.ndarray:
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp could not load {path.name}")
        longest, vocabulary = max(len(w) for w in windows), self.config["vocab_size"]
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = longest
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.type_k = settings.type_v = 0  # a float32 cache: the weights are compared, and nothing else
        context = llama_cpp.llama_init_from_model(model, settings)
        if not context:
            raise RuntimeError("llama.cpp could not make a context")
        parts = []
        batch = llama_cpp.llama_batch_init(longest, 0, 1)
        for window in windows:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
            ids = window[:-1]
            batch.n_tokens = len(ids)
            for place, token in enumerate(ids):
                batch.token[place], batch.pos[place], batch.n_seq_id[place] = token, place, 1
                batch.seq_id[place][0], batch.logits[place] = 0, 1
            if llama_cpp.llama_decode(context, batch) != 0:
                raise RuntimeError("llama.cpp could not run a window")
            found = llama_cpp.llama_get_logits(context)
            parts.append(np.ctypeslib.as_array(found, (len(ids), vocabulary)).copy())
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)
        assert all(torch.isfinite(torch.from_numpy(part)).all() for part in parts), "logits are finite"
        return np.concatenate(parts)
