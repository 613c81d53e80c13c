from pathlib import Path

import pytest
import torch

from anybit import models
from anybit.errors import CheckpointError, RecipeError
from anybit.recipes import calibration
from anybit.recipes.recipe import Calibration, Recipe


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"weights": "int4/g16", "method": "rtn"}, False),
        ({"weights": "int4/g16", "method": "gptq"}, True),
        ({"bits": 3, "method": "rtn"}, True),
    ],
)
def test_who_needs_it(data: dict[str, object], wanted: bool) -> None:
    assert calibration.needed(Recipe.parse(data)) is wanted


def test_windows_are_cut_from_the_text(model: Path, text: Path) -> None:
    loaded = models.load(model)
    tokens = loaded.tokenizer.encode(text.read_text())
    cut = calibration.windows(loaded, text.read_text(), Calibration(samples=7, length=50, seed=3), "text")
    assert len(cut.ids) == 7 and cut.tokens == 350
    starts = []
    for window in cut.ids:
        assert window.dtype == torch.int64 and window[0] == loaded.tokenizer.bos and len(window) == 50
        body = window[1:].tolist()
        starts.append(next(i for i in range(len(tokens)) if tokens[i : i + 49] == body))
    gaps = torch.tensor(starts).diff()
    assert (gaps >= 49).all() and gaps.max() - gaps.min() <= 1
    same = calibration.windows(loaded, text.read_text(), Calibration(samples=7, length=50, seed=3), "text")
    other = calibration.windows(loaded, text.read_text(), Calibration(samples=7, length=50, seed=4), "text")
    assert all(torch.equal(a, b) for a, b in zip(cut.ids, same.ids, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(cut.ids, other.ids, strict=True))


def test_as_many_as_fit_and_no_longer_than_the_model_takes(model: Path, text: Path) -> None:
    loaded = models.load(model)
    cut = calibration.windows(loaded, text.read_text(), Calibration(samples=1000, length=4096), "text")
    assert {len(window) for window in cut.ids} == {loaded.plan.max_positions}
    assert len(cut.ids) == 3000 // (loaded.plan.max_positions - 1)
    whole = torch.cat([window[1:] for window in cut.ids])
    assert len(whole) <= 3000
    short = calibration.windows(loaded, text.read_text()[:128], Calibration(samples=9, length=100), "text")
    assert len(short.ids) == 1


def test_refusals(model: Path, tmp_path: Path) -> None:
    loaded = models.load(model)
    with pytest.raises(RecipeError, match=r"short\.txt is too short: 20 tokens, at least 128"):
        calibration.windows(loaded, "a" * 20, Calibration(), "short.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(RecipeError, match=r"empty\.txt is empty"):
        calibration.read(empty)
    empty.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot read"):
        calibration.read(empty)
    with pytest.raises(RecipeError, match="absent is not a file"):
        calibration.find(model, Calibration(text=tmp_path / "absent"))
    with pytest.raises(RecipeError, match=r"no calibration\.txt of its own.*--calibration"):
        calibration.find(model, Calibration())
    (model / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        calibration.windows(models.load(model), "a" * 500, Calibration(), "text")


def test_the_models_own_text_is_the_default(model: Path, text: Path) -> None:
    (model / "calibration.txt").write_text("own")
    assert calibration.find(model, Calibration()) == model / "calibration.txt"
    assert calibration.find(model, Calibration(text=text)) == text
