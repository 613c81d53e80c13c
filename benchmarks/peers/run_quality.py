"""Other libraries' quantized models as peers of `anybit bench quality`; see ../README.md for the protocol. Runs in .venv-peers or
.venv-peers-calibrated.

python run_quality.py LIBRARY '{"model": DIR, "windows": FILE.json, "calibration": FILE.json, "importance": FILE.npz, "work": DIR,
"threads": 1}'
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from protocol import serve

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
    module, kind = LIBRARIES[name]
    try:
        made: Any = getattr(importlib.import_module(module), kind)(Path(job["model"]), job)
    except ImportError as error:
        lacks = f"{name} is not installed for this interpreter ({error})"
        print(json.dumps({"engine": name, "lacks": lacks}), flush=True)
        return
    windows = json.loads(Path(job["windows"]).read_text())

    def answer(line: str) -> dict[str, Any]:
        asked = json.loads(line)
        try:
            stored, logits = made.run(asked["format"], windows)
        except Exception as error:  # whatever a library thinks of a model is an answer
            return {"lacks": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        np.save(asked["out"], logits)
        return {"bytes": int(stored)}

    serve({"engine": name, "version": made.version, "formats": made.formats}, answer)


if __name__ == "__main__":
    main()
