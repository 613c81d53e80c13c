"""The choice of the best version, and the progress over stages, on made-up figures."""

from __future__ import annotations

import shutil

import pytest

from anybit.cli.demo.run import STAGES, Steps, best, layers, stored_as
from anybit.cli.demo.versions import FULL, QUICK
from anybit.cli.report import Variant


def made(name: str, method: str, perplexity: float, bits: float) -> Variant:
    return Variant(name, method, perplexity, 1, bits, None, None)


def test_best_of_few_bits():
    original, eight = made("bf16", "original", 10.0, 16.0), made("8", "gptq", 10.1, 8.3)
    three, mixed = made("3", "gptq", 14.0, 3.25), made("m", "mixed", 12.0, 3.5)
    assert best([original, eight, three, mixed]) is mixed
    assert best([original, eight]) is eight


@pytest.mark.parametrize("versions", [FULL, QUICK])
def test_progress_grows_to_the_whole(versions):
    seen: list[tuple[float, float]] = []
    steps = Steps(versions, lambda what, done, total: seen.append((done, total)))
    for version in versions:
        if version.recipe is not None:
            steps.stage("making", STAGES[version.method])("half", 0.5, 1.0)
    for _ in versions:
        steps.stage("scoring", STAGES["score"])("half", 1, 2)
    steps.stage("speed", STAGES["speed"])("all", 3, 3)
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_layers_of_a_checkpoint(tiny_folder):
    from anybit import models

    found = layers(models.load(tiny_folder))
    assert {layer.spec for layer in found} == {"bfloat16"}
    assert all(layer.bits == 16 for layer in found)
    assert len(found) == 1 + 2 * 7


def test_a_model_is_named_after_what_it_is_stored_as(tiny_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    from anybit import models

    assert stored_as(models.load(tiny_folder)) == "bf16"
    wide = tmp_path / "wide"
    shutil.copytree(tiny_folder, wide)
    file = wide / "model.safetensors"
    save_file({name: tensor.float() for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    assert stored_as(models.load(wide)) == "fp32"
