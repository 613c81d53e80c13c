"""What learned transforms leave of the predictions, against dense matrices, and that "auto" keeps the better of two starts."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.recipes.test_transforming import Pieces, job_of

from anybit import models, recipes
from anybit.formats import TensorFormat
from anybit.models import Model, TorchExecutor
from anybit.models.evaluation import divergence
from anybit.quantize.learned import rounded
from anybit.recipes import affine, transforming
from anybit.tensors import quantize
from anybit.transforms.block_affine import Options

OPTIONS = Options(block=4, shared=2, act="int4/g4", steps=4, batch=2, start="hadamard")
FOUR = TensorFormat.parse("int4/g4")


def outlying(path: Path) -> tuple[Model, dict[str, str]]:
    model = models.inject_outliers(models.load(path), 0.03, 64.0, ("norm", "ud", "vo"), seed=3)
    return model, {name: "int4/g4" for name in model.weights.names() if "proj" in name}


def shown() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randint(0, 131, (48,), generator=g) for _ in range(8)]


def learned(model: Model, formats: dict[str, str], options: Options) -> affine.Found:
    return affine.learned(model, formats, shown(), options, lambda _: None, lambda *_: None, lambda *_: None)


@pytest.mark.parametrize("nearest", [False, True])
def test_the_divergence_is_that_of_dense_transforms(nearest: bool, model: Path) -> None:
    outliers, formats = outlying(model)
    found = learned(outliers, formats, OPTIONS)
    turns = {
        name: affine.affine_of(place, found)
        for place in affine.places(outliers.plan, formats, OPTIONS)
        for name in place.before
    }

    def multiply(site: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if site not in turns:
            return x @ w.T
        p = turns[site].matrix().double()
        turned = (w.double() @ torch.linalg.inv(p).T).float()
        turned = quantize(turned, FOUR).dequantize() if nearest else turned
        return rounded(turns[site].clip((x.double() @ p).float()), FOUR) @ turned.T

    assert len(turns) == 14 and all(turn.kept is not None for turn in turns.values())
    exact = TorchExecutor(outliers.plan, outliers.weights)
    got = TorchExecutor(outliers.plan, outliers.weights, multiply=multiply)
    wanted = divergence(got, exact, [shown()[-1].tolist()])  # an eighth of the windows
    assert affine.far(outliers, formats, shown(), OPTIONS, found, nearest) == pytest.approx(wanted.kl, rel=0.05)


@pytest.mark.parametrize("better", affine.EITHER)
def test_auto_keeps_what_diverges_less(
    better: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"name": "block_affine", "options": {"block": 4, "shared": 2, "act": "int4/g4", "steps": 0, "clip": False}}
    job = replace(job_of(model, [step], tmp_path / "out"))
    options = Options(**step["options"])
    formats = transforming._specs(job)
    each = {
        start: affine.learned(
            job.model,
            formats,
            job.windows.ids,
            replace(options, start=start),
            lambda _: None,
            lambda *_: None,
            lambda *_: None,
        )
        for start in affine.EITHER
    }
    name = next(name for name in each["hadamard"] if name.endswith("affine_own"))

    def far(model: Model, formats: object, ids: object, options: Options, found: affine.Found, nearest: bool) -> float:
        assert nearest  # as the method of the job rounds
        return float(not torch.equal(found[name], each[better][name]))

    monkeypatch.setattr(affine, "far", far)
    got = transforming._learned(job, "a", options, lambda *_: None, Pieces())
    assert torch.equal(got[name], each[better][name])


@pytest.mark.parametrize(
    ("share", "size"), [(0.03, 16.0), (0.2, 64.0)]
)  # Hadamard matrices are the better start, and none
def test_the_default_is_as_good_as_the_better_start(
    model: Path, text: Path, tmp_path: Path, share: float, size: float
) -> None:
    models.outliers.write(
        models.inject_outliers(models.load(model), share, size, ("norm", "ud", "vo")), tmp_path / "outlying"
    )
    start = models.load(tmp_path / "outlying")
    ids = start.tokenizer.encode(text.read_text())[:96]
    exact = TorchExecutor(start.plan, start.weights)
    found = {}
    for begin in ("auto", *affine.EITHER):
        options = {"block": 4, "shared": 2, "act": "int4/g4", "steps": 6, "batch": 2, "start": begin}
        given = {"weights": "int4/g4", "method": "rtn", "transforms": [{"name": "block_affine", "options": options}]}
        recipe = recipes.Recipe.parse({**given, "calibration": {"text": str(text), "samples": 6, "length": 64}})
        recipes.run(tmp_path / "outlying", recipe, tmp_path / begin)
        made = models.load(tmp_path / begin)
        found[begin] = divergence(TorchExecutor(made.plan, made.weights, act=FOUR), exact, [ids]).kl
    assert found["auto"] in (found["hadamard"], found["identity"])
    assert abs(found["hadamard"] - found["identity"]) > 0.01 * found["auto"] > 0
