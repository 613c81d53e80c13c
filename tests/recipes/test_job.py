import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from anybit.errors import AnybitError, RecipeError
from anybit.recipes import job
from anybit.recipes.recipe import Recipe

RTN = Recipe.parse({"weights": "int4/g16", "method": "rtn"})
CHOICES = ["int2/g16", "int4/g16", "int8/g16"]


def test_a_good_job_touches_nothing(model: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    checked = job.check(model, RTN, tmp_path / "deep" / "out")
    assert checked.windows is None and not checked.free and len(checked.items) == 16
    assert sorted(tmp_path.rglob("*")) == before


def test_a_budget_below_reach_names_both_ends(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse({"bits": 1.5, "choices": CHOICES, "calibration": {"text": str(text)}})
    with pytest.raises(RecipeError, match=r"1.5 bits a weight is below the smallest.*reach 3\.\d+ to 9\.\d+ bits"):
        job.check(model, recipe, tmp_path / "out")


def test_a_budget_above_reach_is_kept_by_anything(model: Path, text: Path, tmp_path: Path) -> None:
    """int8 everywhere: 8 bits and an fp16 scale for 16 columns; norms in bf16."""
    for bits, more in ((9.0, False), (9.2, True), (15.9, True)):
        recipe = Recipe.parse({"bits": bits, "choices": CHOICES, "calibration": {"text": str(text)}})
        checked = job.check(model, recipe, tmp_path / "out")
        assert job.plenty(checked) == more
        assert checked.accounting.bits_per_weight(job.predicted_item_bytes(checked)) <= min(bits, 9.05)
    assert not job.plenty(job.check(model, RTN, tmp_path / "out"))


def test_the_ends_of_the_reach_are_allowed(model: Path, text: Path, tmp_path: Path) -> None:
    """int2 everywhere: 2 bits and an fp16 scale for 16 columns (row padding: none here), norms in bf16."""
    parameters = 2 * 260 * 32 + 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 80 * 32) + 5 * 32
    matrices = parameters - 5 * 32
    least = (matrices * (2 + 1) + 5 * 32 * 16) / parameters
    for bits, fits in ((least + 1e-3, True), (least - 1e-3, False)):
        recipe = Recipe.parse({"bits": bits, "choices": CHOICES, "calibration": {"text": str(text)}})
        if fits:
            assert len(job.check(model, recipe, tmp_path / "out").free) == 16
        else:
            with pytest.raises(RecipeError, match="below"):
                job.check(model, recipe, tmp_path / "out")


def test_a_budget_with_nothing_left_to_choose(model: Path, text: Path, tmp_path: Path) -> None:
    data = {"bits": 8, "overrides": [{"pattern": "*", "weights": "int4/g16"}], "calibration": {"text": str(text)}}
    with pytest.raises(RecipeError, match="at least one weight matrix"):
        job.check(model, Recipe.parse(data), tmp_path / "out")


def test_outputs_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("x")
    for out, overwrite, sentence in (
        (model, True, "is the model itself"),
        (file / "below", False, "cannot be written"),
        (Path("/proc/anybit/out"), False, "cannot be written"),
        (file, True, "exists"),
        (other, False, "exists"),
        (other, True, "will not be replaced"),
    ):
        with pytest.raises(AnybitError, match=sentence):
            job.check(model, RTN, out, overwrite=overwrite)
    assert file.read_text() == "x" and (other / "cat.jpg").exists()


def test_too_little_disk_space_is_refused_before_the_start(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    needed = job.disk_needed(job.check(model, RTN, tmp_path / "out"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, needed - 1))
    with pytest.raises(RecipeError, match=r"MB free, and the job needs"):
        job.check(model, RTN, tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, needed))
    job.check(model, RTN, tmp_path / "out")


def test_unusable_models(model: Path, tmp_path: Path) -> None:
    with pytest.raises(AnybitError, match="no model directory"):
        job.check(tmp_path / "absent", RTN, tmp_path / "out")
    shard = model / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(AnybitError, match="truncated"):
        job.check(model, RTN, tmp_path / "out")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"weights": "int4/g16+z", "method": "rtn", "options": {"scale_rule": "exact"}},
            "'exact' knows no zero points",
        ),
        ({"weights": "int4/g16+z", "method": "gptq", "options": {"scale_rule": "gaussian"}}, "no zero points"),
        ({"weights": "mxfp4", "method": "rtn", "options": {"power": "ceil"}}, "under absmax and gaussian"),
        (
            {"weights": "ternary/g16", "method": "rtn", "options": {"scale_rule": "four_over_six"}},
            "two positive values",
        ),
    ],
)
def test_scale_rules_that_do_not_fit_the_format_are_refused_before_work(
    document: dict[str, object], message: str, model: Path, text: Path, tmp_path: Path
) -> None:
    recipe = Recipe.parse(document | {"calibration": {"text": str(text)}})
    with pytest.raises(RecipeError, match=f"cannot be quantized as the recipe says.*{message}"):
        job.check(model, recipe, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_formats_whose_groups_a_transform_would_cut_are_refused_before_work(
    model: Path, text: Path, tmp_path: Path
) -> None:
    calibration = {"text": str(text)}
    for document in ({"weights": "int4/g32"}, {"bits": 4, "choices": ["nvfp4", "int4/g32"]}, {"bits": 8}):
        with pytest.raises(RecipeError, match="cuts the groups of int"):
            job.check(
                model,
                Recipe.parse({"method": "arcquant", "calibration": calibration, **document}),
                tmp_path / "out",
            )
    keep = {"method": "arcquant", "calibration": calibration, "weights": "nvfp4", "lm_head": "keep"}
    job.check(model, Recipe.parse(keep), tmp_path / "out")


@pytest.mark.parametrize(
    "given", [{"bits": 4.0}, {"weights": "int4/g16"}, {"bits": 8.5, "choices": ["int8/g16", "fp16"]}]
)
@pytest.mark.parametrize("method", ["matgptq", "matgptq_distill"])
def test_formats_that_a_method_does_not_store_are_refused_before_work(
    method: str, given: dict[str, object], model: Path, text: Path, tmp_path: Path
) -> None:
    recipe = Recipe.parse({**given, "method": method, "calibration": {"text": str(text)}})
    with pytest.raises(RecipeError, match=r"q_proj\.weight: matgptq stores int8 codes .* got (int|fp)"):
        job.check(model, recipe, tmp_path / "out")
    budget = {"bits": 9.05, "choices": ["int8/g16", "int8/g32"], "embeddings": "int4/g16"}
    job.check(model, Recipe.parse({**budget, "method": method, "calibration": {"text": str(text)}}), tmp_path / "out")
