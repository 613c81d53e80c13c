"""A Llama of any shape with random weights as GGUF, quantized by llama.cpp's own function. Without a tokenizer: ids go in."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

FORMATS = {"Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q4_K_M": 15, "BF16": 32}
"""Names and numbers of `llama_ftype`."""


def quantized(config: dict[str, Any], name: str, work: Path) -> Path:
    """The GGUF file of that shape and format in `work`, made where it is not there yet."""
    if name not in FORMATS:
        raise SystemExit(f"unknown GGUF format {name}; known: {', '.join(FORMATS)}")
    work.mkdir(parents=True, exist_ok=True)
    shape = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    path = work / f"llama-{shape}-{name.lower()}.gguf"
    if path.exists():
        return path
    plain, unfinished = work / f"llama-{shape}-f16.gguf", path.with_suffix(f".{os.getpid()}.part")
    write_float16(config, plain)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FORMATS[name]
    params.nthread = os.cpu_count() or 1
    if llama_cpp.llama_model_quantize(str(plain).encode(), str(unfinished).encode(), params) != 0:
        raise SystemExit(f"llama.cpp could not quantize to {name}")
    plain.unlink()
    unfinished.rename(path)
    return path


def tensors(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, as llama.cpp names them."""
    width, ffn, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or width // heads
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    if not config.get("tie_word_embeddings"):
        shapes["output.weight"] = (vocabulary, width)
    for block in range(config["num_hidden_layers"]):
        shapes |= {
            f"blk.{block}.attn_norm.weight": (width,),
            f"blk.{block}.attn_q.weight": (heads * head, width),
            f"blk.{block}.attn_k.weight": (kv_heads * head, width),
            f"blk.{block}.attn_v.weight": (kv_heads * head, width),
            f"blk.{block}.attn_output.weight": (width, heads * head),
            f"blk.{block}.ffn_norm.weight": (width,),
            f"blk.{block}.ffn_gate.weight": (ffn, width),
            f"blk.{block}.ffn_up.weight": (ffn, width),
            f"blk.{block}.ffn_down.weight": (width, ffn),
        }
    return shapes


def write_float16(config: dict[str, Any], path: Path) -> None:
    """Random weights (normal, standard deviation 0.02; norms 1) as float16."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config.get("head_dim") or width // heads)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(1)
    writer.add_tokenizer_model("no_vocab")
    rng = np.random.default_rng(0)
    # one pool of values for all tensors, cut at different places: drawing a thousand million normals would take minutes
    pool = (0.02 * rng.standard_normal(1 << 24, dtype=np.float32)).astype(np.float16)
    for name, shape in tensors(config).items():
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            start = int(rng.integers(pool.size))
            writer.add_tensor(name, np.resize(np.roll(pool, start), shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_bytes(path: Path) -> int:
    """Bytes of all tensors as stored."""
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(str(path)).tensors)
