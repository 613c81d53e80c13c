"""Other libraries' quantized models as peers of `anybit bench quality`; see ../README.md for the protocol. Runs in .venv-peers or
.venv-peers-calibrated.

python run_quality.py LIBRARY '{"model": DIR, "windows": FILE.json, "calibration": FILE.json, "importance": FILE.npz, "work": DIR,
"threads": 1}'
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = {
    "llama.cpp": ("quality_llama", "Llama"),
    "torchao": ("quality_modules", "TorchAO"),
    "quanto": ("quality_modules", "Quanto"),
    "hqq": ("quality_modules", "HQQ"),
    "bitsandbytes": ("quality_modules", "BitsAndBytes"),
    "auto-round": ("quality_calibrated", "AutoRound"),
    "gptqmodel": ("quality_calibrated", "GPTQModel"),
    "llm-compressor": ("quality_calibrated", "LLMCompressor"),
}


def main() -> None:
    name, job = sys.argv[1], json.loads(sys.argv[2])
    # what libraries print, and some print JSON of their own, goes to standard error
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, kind = LIBRARIES[name]
    try:
        made: Any = getattr(importlib.import_module(module), kind)(Path(job["model"]), job)
    except ImportError as error:
        print(
            json.dumps({"engine": name, "lacks": f"{name} is not installed for this interpreter ({error})"}), flush=True
        )
        return
    print(json.dumps({"engine": name, "version": made.version, "formats": made.formats}), file=out, flush=True)
    windows = json.loads(Path(job["windows"]).read_text())
    for line in sys.stdin:
        if not line.strip():
            continue
        asked = json.loads(line)
        try:
            stored, logits = made.run(asked["format"], windows)
        except Exception as error:  # whatever a library thinks of a model is an answer
            print(
                json.dumps({"lacks": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}),
                file=out,
                flush=True,
            )
            continue
        np.save(asked["out"], logits)
        print(json.dumps({"bytes": int(stored)}), file=out, flush=True)


if __name__ == "__main__":
    main()
