"""Methods of post-training quantization side by side at equal bytes: perplexity, and KL divergence to the unquantized model.

    python benchmarks/ptq.py --work DIR [--models anybit-tiny,lm-outliers,stories260k,vit,resnet20] [--data DIR] [--bits 8,4,3,2]
        [--act int8/tensor] > table.md

Every cell is one `recipes.run`, scored with exact activations (or those named in the row); it is kept in DIR by its recipe, model and
text, so that the script goes on where it was and measures only what has changed. After a change of the code itself, take another DIR.
Networks that classify images (vit, resnet20) are calibrated and scored as the zoo does it: KL divergence of the classes, accuracy; with
--act the family of learned roundings is compared on them, the inputs of all layers rounded.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anybit import models, recipes, zoo
from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.models import TorchExecutor, evaluation
from anybit.models.module import quantize_module, uniform
from anybit.models.slices import at_bits
from anybit.nn import Holder
from anybit.quantize.table import METHODS
from anybit.recipes import journal
from anybit.reproduce.subject import Remembering
from anybit.zoo import images, loading
from anybit.zoo.data import data_file
from anybit.zoo.members import MEMBERS
from anybit.zoo.networks import NETWORKS

LLOYD_MAX = "levels(-2.152,-1.344,-0.756,-0.2451,0.2451,0.756,1.344,2.152)"
SCORED = 4096
WINDOW = 256
CALIBRATION = {"samples": 64, "length": 256}


def rows(bits: int) -> dict[str, dict[str, Any]]:
    """label -> recipe without calibration; all store `bits` + 1/8 bits a weight in linear layers and int8 rows elsewhere."""
    block = "g64:e4m3fn+t"
    fmt = f"int{bits}/{block}"
    found: dict[str, dict[str, Any]] = {
        "rtn": {"weights": fmt, "method": "rtn"},
        "rtn, hadamard": {"weights": fmt, "method": "rtn", "transforms": ["hadamard"]},
        "awq": {"weights": fmt, "method": "awq"},
        "gptq": {"weights": fmt},
        "gptq, permute": {"weights": fmt, "transforms": ["permute"]},
        "gptq, awq": {"weights": fmt, "transforms": ["awq"]},
        "gptq, hadamard": {"weights": fmt, "transforms": ["hadamard"]},
        "gptq, rotate_inputs": {"weights": fmt, "transforms": ["rotate_inputs"]},
        "gradient_ptq, rotate_inputs": {"weights": fmt, "method": "gradient_ptq", "transforms": ["rotate_inputs"]},
        "gradient_ptq": {"weights": fmt, "method": "gradient_ptq"},
        "gptq, awq, hadamard": {"weights": fmt, "transforms": ["awq", "hadamard"]},
    }
    if bits == 4:
        found["nf4"] = {"weights": f"nf4/{block}", "method": "nf4"}
        found["gptq of nf4"] = {"weights": f"nf4/{block}"}
    if bits == 3:
        found["itq3_s"] = {"weights": f"{LLOYD_MAX}/{block}", "method": "itq3_s"}
        found["gptq of its levels"] = {"weights": f"{LLOYD_MAX}/{block}"}
    found["gptq-8, sliced"] = {"weights": f"int8/{block}", "options": {"scale_rule": "absmax"}, "slice": bits}
    shared = {"bits": "2,3,4,8", "weights": "0.01,0.1,0.3,1"}
    found["matgptq, one file for all"] = {
        "weights": f"int8/{block}",
        "method": "matgptq",
        "options": shared,
        "slice": bits,
    }
    return found


def texts(folder: Path, data: Path | None, work: Path) -> tuple[Path, Path]:
    """Calibration and held-out text of a model."""
    if (folder / "heldout.txt").is_file():
        return folder / "calibration.txt", folder / "heldout.txt"
    assert data is not None, "stories260k needs --data"
    text = (data / "text" / "tinystories_train_excerpt.txt").read_text(encoding="utf-8")
    cut = text.index("\n", len(text) // 2)
    made = work / "stories-calibration.txt", work / "stories-heldout.txt"
    made[0].write_text(text[:cut], encoding="utf-8")
    made[1].write_text(text[cut:], encoding="utf-8")
    return made


REFERENCES: dict[Path, Remembering] = {}


def reference(folder: Path) -> Remembering:
    """The unquantized model, which is run once a window."""
    if folder not in REFERENCES:
        model = models.load(folder)
        REFERENCES[folder] = Remembering(TorchExecutor(model.plan, model.weights))
    return REFERENCES[folder]


def measure(folder: Path, row: dict[str, Any], calibration: Path, heldout: Path, work: Path) -> dict[str, Any]:
    """perplexity, kl, agreement, bits; from the store where it was measured before."""
    row = dict(row)
    cut_to, act = row.pop("slice", None), row.pop("act", None)
    recipe = recipes.Recipe.parse({**row, "calibration": {**CALIBRATION, "text": str(calibration)}})
    mark = journal.fingerprint(folder, recipe.fingerprint(), calibration.read_text(encoding="utf-8"), 1)
    scored = heldout.read_text(encoding="utf-8")
    key = hashlib.sha256(json.dumps([mark, cut_to, act, scored, SCORED]).encode()).hexdigest()[:24]
    kept = work / f"{key}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    out = work / f"model-{hashlib.sha256(json.dumps(mark).encode()).hexdigest()[:24]}"
    if not out.exists():
        recipes.run(folder, recipe, out)
    original, made = models.load(folder), models.load(out)
    made = at_bits(made, cut_to) if cut_to else made
    ids = original.tokenizer.encode(scored)
    windows = evaluation.cut(ids, WINDOW, original.tokenizer.bos, SCORED)
    executor = Remembering(TorchExecutor(made.plan, made.weights, act=TensorFormat.parse(act) if act else None))
    score = evaluation.perplexity(executor, windows)
    far = evaluation.divergence(executor, reference(folder), windows)
    found = {
        "perplexity": score.perplexity,
        "kl": far.kl,
        "stderr": far.stderr,
        "agreement": far.agreement,
        "bits": made.bits_per_weight,
    }
    kept.write_text(json.dumps(found))
    if not cut_to:
        shutil.rmtree(out)
    return found


def base(folder: Path, heldout: Path) -> float:
    """Perplexity of the model itself."""
    model = models.load(folder)
    ids = model.tokenizer.encode(heldout.read_text(encoding="utf-8"))
    windows = evaluation.cut(ids, WINDOW, model.tokenizer.bos, SCORED)
    return evaluation.perplexity(reference(folder), windows).perplexity


def network_rows(bits: int) -> dict[str, dict[str, Any]]:
    """label -> format, method, options, and the width that codes are cut to; one for every method of the table."""
    block = "g64:e4m3fn+t"
    fmt = f"int{bits}/{block}"
    found: dict[str, dict[str, Any]] = {name: {"weights": fmt, "method": name} for name in METHODS}
    found["nf4"]["weights"] = f"nf4/{block}"
    shared = {"bits": "2,3,4,8", "weights": "0.01,0.1,0.3,1"}
    for name in ("matgptq", "matgptq_distill"):
        found[name] |= {"weights": f"int8/{block}", "options": shared, "slice": bits}
    if bits != 4:
        del found["nf4"]
    return found


LEARNED = {"scales": False, "rate": 0.01, "steps": 200}
"""Of roundings alone, as their papers have them."""


def family_rows(bits: int, act: str) -> dict[str, dict[str, Any]]:
    """label -> as of `network_rows`, with the format of activations: AdaRound, BRECQ, QDrop, and what anybit makes of them."""
    learned = {"weights": f"int{bits}/row", "method": "gradient_ptq", "act": act}
    relaxed = {**LEARNED, "variable": "relaxed", "start": "rtn"}
    return {
        "rtn": {"weights": f"int{bits}/row", "method": "rtn", "act": act},
        "gptq": {"weights": f"int{bits}/row", "method": "gptq", "act": act},
        "AdaRound": {**learned, "options": {**relaxed, "unit": "layer"}},
        "BRECQ": {**learned, "options": relaxed},
        "QDrop": {**learned, "options": {**relaxed, "act": act}},
        "gradient_ptq": {**learned, "options": {}},
        "gradient_ptq, act": {**learned, "options": {"act": act}},
    }


def classes(network: nn.Module) -> Tensor:
    """Log probabilities [images, classes] of the first 1,000 test images of CIFAR-10."""
    with torch.no_grad():
        return torch.cat([network(part) for part in scored_images()[0].split(100)]).log_softmax(-1)


@functools.cache
def scored_images() -> tuple[Tensor, Tensor]:
    """Images as the zoo's networks take them, and their classes."""
    return images.images(data_file("cifar10/test_first1000.npz"))


def measure_network(name: str, row: dict[str, Any], work: Path) -> dict[str, Any]:
    """accuracy, kl, agreement, bits over the quantized layers; {"refused": sentence} where the method does not apply."""
    member = next(member for member in MEMBERS if member.name == name)
    key = hashlib.sha256(json.dumps([name, member.sha256, row], sort_keys=True).encode()).hexdigest()[:24]
    kept = work / f"{key}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    made = zoo.load(name)
    calibration = NETWORKS[name].calibration
    chosen = uniform(made, TensorFormat.parse(row["weights"]))
    try:
        batches, act = calibration() if calibration else (), row.get("act")
        rounded = TensorFormat.parse(act) if act else None
        quantize_module(made, chosen, row["method"], batches, row.get("options"), act=rounded)
    except RecipeError as error:
        return {"refused": str(error)}
    held = {label: layer.weight for label, layer in made.named_modules() if isinstance(layer, Holder)}
    if cut_to := row.get("slice"):
        held = {label: weight.at_bits(cut_to) for label, weight in held.items()}
        made = zoo.load(name)  # with the values of the slices
        for label, weight in held.items():
            made.get_submodule(label).weight.copy_(weight.dequantize().reshape(weight.shape))
    bits = 8 * sum(weight.nbytes for weight in held.values()) / sum(prod(weight.shape) for weight in held.values())
    wanted, got = classes(zoo.load(name)), classes(made)
    each = (wanted.exp() * (wanted - got)).sum(-1)
    found = {
        "accuracy": 100 * float((got.argmax(-1) == scored_images()[1]).double().mean()),
        "kl": float(each.mean()),
        "stderr": float(each.std() / len(each) ** 0.5),
        "agreement": float((got.argmax(-1) == wanted.argmax(-1)).double().mean()),
        "bits": bits,
    }
    kept.write_text(json.dumps(found))
    return found


def network_tables(name: str, widths: list[int], wanted: list[str], work: Path, act: str | None) -> None:
    """Print a table a width. act: format of all inputs, for the family of learned roundings."""
    right = 100 * float((classes(zoo.load(name)).argmax(-1) == scored_images()[1]).double().mean())
    print(f"\n### {name}: {right:.1f} % of 1,000 images right unquantized\n", flush=True)
    refused: dict[str, str] = {}
    for bits in widths:
        given = f", inputs {act}" if act else ""
        print(
            f"| {bits} bits{given} | bits a weight | right | KL, nats an image | same first choice |\n|---|---|---|---|---|"
        )
        for label, row in (family_rows(bits, act) if act else network_rows(bits)).items():
            if wanted and label not in wanted:
                continue
            found = measure_network(name, row, work)
            if "refused" in found:
                refused[label] = found["refused"]
                continue
            print(
                f"| {label} | {found['bits']:.3f} | {found['accuracy']:.1f} % | {found['kl']:.5f} ± {found['stderr']:.5f} "
                f"| {100 * found['agreement']:.1f} % |",
                flush=True,
            )
        print(flush=True)
    for label, why in refused.items():
        print(f"* {label}: {why}", flush=True)


ACTIVATIONS: dict[str, dict[str, Any]] = {
    "rtn": {"weights": "int8/row", "method": "rtn", "options": {"scale_rule": "absmax"}},
    "smoothquant": {"weights": "int8/row", "method": "smoothquant"},
    "smoothquant, all sites": {
        "weights": "int8/row",
        "method": "smoothquant",
        "transforms": [{"name": "smooth", "options": {"values": True, "down": True}}],
    },
    "rtn, hadamard": {
        "weights": "int8/row",
        "method": "rtn",
        "transforms": ["hadamard"],
        "options": {"scale_rule": "absmax"},
    },
    "rtn, rotate_inputs": {"weights": "int8/row", "method": "rtn", "transforms": ["rotate_inputs"]},
}
"""W8A8."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", default="anybit-tiny,lm-outliers,stories260k")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bits", default="8,4,3,2")
    parser.add_argument("--rows", default="", help="labels of rows, with semicolons between them; all by default")
    parser.add_argument("--no-activations", action="store_true")
    parser.add_argument("--act", help="of networks: round the inputs of all layers so, and compare learned roundings")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    wanted = [name.strip() for name in given.rows.split(";") if name.strip()]
    for name in given.models.split(","):
        if name in NETWORKS:
            network_tables(name, [int(b) for b in given.bits.split(",")], wanted, given.work, given.act)
            continue
        folder = given.data / name if name == "stories260k" else loading.folder(name)
        calibration, heldout = texts(folder, given.data, given.work)
        print(f"\n### {name}: perplexity {base(folder, heldout):.3f} unquantized\n", flush=True)
        for bits in [int(b) for b in given.bits.split(",")]:
            print(
                f"| {bits} bits | bits a weight | perplexity | KL, nats a token | same first choice |\n|---|---|---|---|---|",
                flush=True,
            )
            for label, row in rows(bits).items():
                if wanted and label not in wanted:
                    continue
                line(label, measure(folder, row, calibration, heldout, given.work))
            print(flush=True)
        if given.no_activations:
            continue
        for act in ("int8/row", "int8/tensor"):
            print(
                f"| W8A8, activations {act} | bits a weight | perplexity | KL, nats a token | same first choice |\n|---|---|---|---|---|"
            )
            for label, row in ACTIVATIONS.items():
                line(label, measure(folder, {**row, "act": act}, calibration, heldout, given.work))
            print(flush=True)


def line(label: str, found: dict[str, Any]) -> None:
    """A row of a table."""
    print(
        f"| {label} | {found['bits']:.3f} | {found['perplexity']:.3f} | {found['kl']:.5f} ± {found['stderr']:.5f} "
        f"| {100 * found['agreement']:.1f} % |",
        flush=True,
    )


if __name__ == "__main__":
    main()
