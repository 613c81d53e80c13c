"""Average the weights a story model started from with those it was trained on to: the manner of the second at little cost to the first.

    python -m anybit.zoo.average --base DIR --run DIR --share 0.6 --valid books_valid.txt --out DIR

Training on single tales alone makes better tales and a worse model of every other text.  Weights on the straight line between both keep
most of either (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903, section 3: WiSE-FT), because the path from
one to the other never left the basin.  `--out` is a run folder as `train_lm` leaves it, so that `bundle_lm` takes it; its log ends with the
validation loss of the average.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from anybit.zoo.story_text import read_books, tokenize
from anybit.zoo.train_lm import Config, Llama, evaluate, export, load_weights

COPIED = ("tokenizer.json", "tokenizer_config.json", "train_log.jsonl")


def average(base: Path, run: Path, share: float, tokens: np.ndarray, out: Path) -> float:
    """Write (1 - share) * base + share * run, folders of one architecture, to `out`; the loss on the validation `tokens` (nats a token).

    tokens: ids of the validation text, longer than the context. ValueError for a share outside [0, 1] and for other tensors in one than
    in the other.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the second model lies in [0, 1]; got {share}")
    held = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config = Config(**{name: held[name] for name in Config.__dataclass_fields__})
    models = [Llama(config), Llama(config)]
    for model, folder in zip(models, (base, run), strict=True):
        try:
            load_weights(model, folder / "model.safetensors")
        except RuntimeError as error:
            raise ValueError(f"the weights of {folder} are not of the architecture that {run} has") from error
    mixed, trained = models
    with torch.no_grad():
        for p, q in zip(mixed.parameters(), trained.parameters(), strict=True):
            p.lerp_(q, share)
    out.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(run / name, out / name)
    export(mixed, out)
    load_weights(mixed, out / "model.safetensors")  # what is scored is what is stored: bfloat16
    loss = round(evaluate(mixed, tokens), 5)
    last = json.loads((out / "train_log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    row = {"step": last["step"], "loss": last["loss"], "share": share, "valid": loss}
    with (out / "train_log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")
    return loss


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "run", "valid", "out"):
        p.add_argument(f"--{name}", type=Path, required=True)
    p.add_argument("--share", type=float, default=0.6, help="of the weights of --run, in [0, 1]")
    args = p.parse_args()
    tokens, _ = tokenize(read_books(args.valid), args.run / "tokenizer.json")
    print(f"validation loss {average(args.base, args.run, args.share, tokens, args.out):.4f} nats a token")


if __name__ == "__main__":
    main()
