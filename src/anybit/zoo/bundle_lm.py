"""Assemble the bundled `anybit-tiny` from a training run of `train_lm`.

    python -m anybit.zoo.bundle_lm --run DIR --text books_train.txt.gz --valid books_valid.txt --out src/anybit/zoo/weights/anybit-tiny

Copies the model and tokenizer, cuts a calibration text from the training books and a held-out text from the validation books, thins the
training log, and writes the model card from the figures of that log.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

from safetensors import safe_open

from anybit.zoo.story_text import read_books
from anybit.zoo.train_lm import MIXTURE_FILE, write_json

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
CALIBRATION_BYTES = 160_000
HELDOUT_BYTES = 80_000
SAMPLING = {"temperature": 0.6, "min_p": 0.05}
"""How a model of this size writes best: near its likeliest words."""

CARD = """---
license: apache-2.0
language: en
library_name: anybit
---
# anybit-tiny

A Llama-architecture language model of {parameters:,} parameters with its own byte-level BPE tokenizer of {vocab_size:,} entries,
trained from scratch by `src/anybit/zoo/train_lm.py` to write short stories in the manner of old children's books. It exists so that
quantization, perplexity and speed can be tried offline on real trained weights. It knows nothing and should advise nobody.

| | |
|---|---|
| architecture | LlamaForCausalLM: {num_hidden_layers} layers, width {hidden_size}, FFN {intermediate_size}, {num_attention_heads} query / \
{num_key_value_heads} key-value heads of {head_dim}, context {max_position_embeddings}, output tied to the embedding |
| weights | bfloat16 safetensors, {megabytes:.1f} MB |
| data | 86 English classics and children's books from Project Gutenberg, 33 MB, public domain in the United States; no licence \
is needed there to use or pass on text or model{mixture} |
| held out | The Secret Garden and Ozma of Oz; {heldout_kb} kB of them are `heldout.txt`, the text `anybit demo` scores |
| calibration | `calibration.txt`, {calibration_kb} kB from the training books |
| training | {steps:,} steps of 4,096 tokens ({tokens:.1f} M tokens); Muon and AdamW; seed 0; on two CPU cores; `train_log.jsonl` |
| validation loss | {valid:.4f} nats a token (perplexity {perplexity:.2f}) on 40 windows of 512 tokens of the validation books |
"""

MIXTURE = (
    "; after step {after:,}, {tale_share:.0%} of the windows are of single tales and {composed_share:.0%} of stories composed by "
    "`zoo/story_grammar.py`, from which the model has the plots of the short stories it tells"
)


def excerpt(books: list[str], size: int) -> str:
    """About `size` bytes: an equal stretch of whole paragraphs from the middle of each book."""
    parts = []
    share = size // len(books)
    for book in books:
        start = book.find("\n", len(book) // 3) + 1
        end = book.find("\n", start + share)
        parts.append(book[start : end if end > 0 else len(book)])
    return "\n".join(parts) + "\n"


def thin(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The first 50 steps (which a retraining must repeat), then every tenth and every one with a validation loss."""
    return [r for r in rows if r["step"] <= 50 or r["step"] % 10 == 0 or "valid" in r]


def bundle(run: Path, text: Path, valid: Path, out: Path) -> None:
    """Write the bundle; see the module docstring. Raises FileNotFoundError where the run is not finished."""
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(run / name, out / name)
    write_json(out / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, **SAMPLING})
    calibration = excerpt(read_books(text), CALIBRATION_BYTES)
    heldout = excerpt(read_books(valid), HELDOUT_BYTES)
    (out / "calibration.txt").write_text(calibration, encoding="utf-8")
    (out / "heldout.txt").write_text(heldout, encoding="utf-8")
    last: dict[int, dict[str, float]] = {}
    for line in (run / "train_log.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        last[row["step"]] = row  # a resumed run repeats the steps after its checkpoint
    rows = thin([last[step] for step in sorted(last)])
    (out / "train_log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    scored = [r for r in rows if "valid" in r]
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    weights, mixture = out / "model.safetensors", run / MIXTURE_FILE
    with safe_open(weights, "pt") as f:
        parameters = sum(math.prod(f.get_slice(k).get_shape()) for k in f.keys())  # noqa: SIM118 - not a mapping
    card = CARD.format(
        **config,
        parameters=parameters,
        megabytes=weights.stat().st_size / 1e6,
        heldout_kb=len(heldout) // 1000,
        calibration_kb=len(calibration) // 1000,
        steps=rows[-1]["step"],
        tokens=rows[-1]["step"] * 4096 / 1e6,
        mixture=MIXTURE.format(**json.loads(mixture.read_text(encoding="utf-8"))) if mixture.exists() else "",
        valid=scored[-1]["valid"],
        perplexity=math.exp(scored[-1]["valid"]),
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "text", "valid", "out"):
        p.add_argument(f"--{name}", type=Path, required=True)
    args = p.parse_args()
    bundle(args.run, args.text, args.valid, args.out)


if __name__ == "__main__":
    main()
