"""Put the weights of a finished training run into the package.

    python -m anybit.zoo.bundle NAME RUN [--int8]

Copies `model.safetensors` and the thinned log to `weights/NAME`, and prints what the table in `members.py` has to say of them.  With
--int8 the matrices become codes of eight bits with a scale a row, which takes half the bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from anybit.errors import CheckpointError
from anybit.formats import TensorFormat
from anybit.tensors import quantize
from anybit.zoo.members import WEIGHTS, find
from anybit.zoo.training import LOG, STATE, read_log, thin
from anybit.zoo.training import WEIGHTS as FILE

ROWS = TensorFormat.parse("int8/row")
SMALLEST = 4096
"""Numbers a matrix has at least to be stored as int8; smaller ones (routers, heads) would save nothing."""


def in_rows(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file with every `X.weight` of at least `SMALLEST` numbers as `X.weight_int8` (codes, int8, of its shape) and
    `X.scale` (float32, one a row), by least squared error; the others as they are.  `networks.load` reads both."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if not name.endswith(".weight") or value.dim() < 2 or value.numel() < SMALLEST:
            found[name] = value
            continue
        rows = quantize(value.float().flatten(1), ROWS, scale_rule="mse")
        found[f"{name}_int8"] = rows.codes.view(torch.int8).view(value.shape).contiguous()
        scale = f"{name.removesuffix('.weight')}.scale"
        if scale in state:
            raise CheckpointError(f"{name} cannot be stored as int8: the network has a tensor {scale} of its own")
        found[scale] = rows.scales().flatten().contiguous()
    return found


def bundle(name: str, run: Path, weights: Path = WEIGHTS, int8: bool = False) -> str:
    """Copy a run; returns the lines of the table. CheckpointError where the run has no checkpoint."""
    from safetensors.torch import load_file, save_file

    member = find(name)
    if not (run / STATE).is_file():
        raise CheckpointError(f"{run} holds no checkpoint of a training run ({STATE})")
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    out = weights / name
    out.mkdir(parents=True, exist_ok=True)
    if int8:
        save_file(in_rows(load_file(run / FILE)), out / FILE, metadata={"format": "pt"})
    else:
        shutil.copyfile(run / FILE, out / FILE)
    rows = thin([row for row in read_log(run / LOG) if row["step"] <= state["step"]])
    (out / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    digest = hashlib.sha256((out / FILE).read_bytes()).hexdigest()
    steps = state["mark"]["steps"]
    whole = min(steps, state["land"][1]) if state.get("land") else steps
    steps = f"{state['step']:,} steps" + (f" of {whole:,}" if state["step"] < whole else "")
    figures = ", ".join(f"{key} {value:.5g}" for key, value in state["scores"].items())
    return (
        f'{member.name}: sha256 "{digest}"\ntraining "{steps} of {state["mark"]["batch"]} samples, '
        f'{state["seconds"] / 60:.0f} min"\nscores {figures} (before rounding; `anybit zoo eval {name}` gives the bar)'
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("name")
    p.add_argument("run", type=Path)
    p.add_argument("--int8", action="store_true", help="matrices as codes of eight bits with a scale a row")
    args = p.parse_args()
    print(bundle(args.name, args.run, int8=args.int8))


if __name__ == "__main__":
    main()
