"""llama.cpp as a peer, through its C interface; see ../README.md for the protocol. Runs in .venv-peers.

Not named after the package it imports: a script's own folder comes first where Python looks for modules.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

import gguf_model
import llama_cpp
from protocol import serve


def tokens(count: int, vocabulary: int) -> ctypes.Array:
    """`count` token ids that walk through the vocabulary."""
    return (llama_cpp.llama_token * count)(*[(7919 * i + 13) % vocabulary for i in range(count)])


class Engine:
    """A model and its context; prefill in one batch, decode token by token, as `llama-bench` does."""

    def __init__(self, path: Path, threads: int, prefill: int, decode: int) -> None:
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = prefill + decode + 8
        params.n_batch = params.n_ubatch = max(prefill, 1)
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.model or not self.context:
            raise SystemExit(f"llama.cpp could not load {path}")
        vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.prompt, self.written = tokens(prefill, vocabulary), tokens(decode, vocabulary)

    def step(self, ids: ctypes.Array, first: int, count: int) -> None:
        """Run `count` tokens from `first`; logits of the last."""
        window = ctypes.cast(
            ctypes.byref(ids, first * ctypes.sizeof(llama_cpp.llama_token)), ctypes.POINTER(llama_cpp.llama_token)
        )
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(window, count)) != 0:
            raise SystemExit("llama.cpp could not decode a batch")
        llama_cpp.llama_synchronize(self.context)

    def round(self) -> dict[str, float]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        started = time.perf_counter()
        self.step(self.prompt, 0, len(self.prompt))
        between = time.perf_counter()
        for index in range(len(self.written)):
            self.step(self.written, index, 1)
        ended = time.perf_counter()
        return {
            "prefill_tokens": len(self.prompt),
            "prefill_seconds": between - started,
            "decode_tokens": len(self.written),
            "decode_seconds": ended - between,
        }


def main() -> None:
    job = json.loads(sys.argv[1])
    path = gguf_model.quantized(job["config"], job["format"], Path(job["work"]))
    # llama.cpp writes its log to stderr; the protocol has stdout to itself
    engine = Engine(path, job["threads"], job["prefill"], job["decode"])
    about = {"engine": "llama.cpp", "version": f"llama-cpp-python {llama_cpp.__version__}", "format": job["format"]}
    about |= {"bytes": gguf_model.tensor_bytes(path), "system": llama_cpp.llama_print_system_info().decode()}
    serve(about, lambda _: engine.round())


if __name__ == "__main__":
    main()
