"""A served slice is the sliced codes, runs in both executors, and leaves the file alone."""

from pathlib import Path

import pytest
import torch
from tests.recipes.conftest import write_model

from anybit import models, recipes
from anybit.errors import AnybitError
from anybit.models import TorchExecutor
from anybit.models.slices import at_bits, sliceable
from anybit.runtime.executor import NativeExecutor


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("master")
    text = folder / "text.txt"
    text.write_text("once upon a time there was a fox who had a house " * 40)
    recipe = {
        "method": "matgptq",
        "weights": "int8/g16",
        "calibration": {"text": str(text), "samples": 4, "length": 64},
    }
    recipes.run(write_model(folder / "model"), recipes.Recipe.parse(recipe), folder / "out")
    return folder / "out"


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_blocks_are_cut_and_the_rest_stays(master: Path, bits: int) -> None:
    model = models.load(master)
    served = at_bits(model, bits)
    for name in model.weights.names():
        whole, part = model.weights.get(name), served.weights.get(name)
        if ".layers." in name and "proj" in name:
            assert part.format.element.name == f"int{bits}"
            assert torch.equal(part.dequantize(), whole.at_bits(bits).dequantize())
        else:
            a, b = (w.dequantize() if not isinstance(w, torch.Tensor) else w for w in (whole, part))
            assert torch.equal(a, b)
    assert served.parameters == model.parameters
    assert bits == 8 or served.nbytes < model.nbytes
    ids = [256, 5, 9, 100]
    wanted = TorchExecutor(served.plan, served.weights).forward(ids, "all")
    got = NativeExecutor(served.plan, served.weights, act=None, kv="fp32").forward(ids, "all")
    assert (got - wanted).norm() <= 1e-4 * wanted.norm()


def test_each_matrix_may_have_its_own_width(master: Path) -> None:
    model = models.load(master)
    able = sliceable(model)
    first, second = list(able)[:2]
    assert able[first] == model.weights.get(first).dequantize().numel()
    served = at_bits(model, {first: 2, second: 4})
    for name in able:
        width = {first: 2, second: 4}.get(name, 8)
        assert torch.equal(served.weights.get(name).dequantize(), model.weights.get(name).at_bits(width).dequantize())
    with pytest.raises(AnybitError, match=r"lm_head\.weight is no int8 weight of the blocks"):
        at_bits(model, {"lm_head.weight": 4})


def test_refusals(master: Path, tmp_path: Path) -> None:
    with pytest.raises(AnybitError, match="no form of 0 bits; choose 1 to 8"):
        at_bits(models.load(master), 0)
    with pytest.raises(AnybitError, match="no int8 weights"):
        at_bits(models.load(write_model(tmp_path / "plain")), 4)
