"""Put the weights of a finished training run into the package.

    python -m anybit.zoo.bundle NAME RUN

Copies `model.safetensors` and the thinned log to `weights/NAME`, and prints what the table in `members.py` has to say of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch

from anybit.errors import CheckpointError
from anybit.zoo.members import WEIGHTS, find
from anybit.zoo.training import LOG, STATE, read_log, thin
from anybit.zoo.training import WEIGHTS as FILE


def bundle(name: str, run: Path, weights: Path = WEIGHTS) -> str:
    """Copy a run; returns the lines of the table. CheckpointError where the run has no checkpoint."""
    member = find(name)
    if not (run / STATE).is_file():
        raise CheckpointError(f"{run} holds no checkpoint of a training run ({STATE})")
    state = torch.load(run / STATE, map_location="cpu", weights_only=True)
    out = weights / name
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / FILE, out / FILE)
    rows = thin([row for row in read_log(run / LOG) if row["step"] <= state["step"]])
    (out / LOG).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    digest = hashlib.sha256((out / FILE).read_bytes()).hexdigest()
    steps = f"{state['step']:,} steps" + (
        f" of {state['mark']['steps']:,}" if state["step"] < state["mark"]["steps"] else ""
    )
    figures = ", ".join(f"{key} {value:.5g}" for key, value in state["scores"].items())
    return (
        f'{member.name}: sha256 "{digest}"\ntraining "{steps} of {state["mark"]["batch"]} samples, '
        f'{state["seconds"] / 60:.0f} min"\nscores {figures} (before rounding to bfloat16; `anybit zoo eval {name}` gives the bar)'
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("name")
    p.add_argument("run", type=Path)
    args = p.parse_args()
    print(bundle(args.name, args.run))


if __name__ == "__main__":
    main()
