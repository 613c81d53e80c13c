from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from anybit.errors import RecipeError
from anybit.recipes import estimates
from anybit.recipes.job import Job, check
from anybit.recipes.recipe import Recipe


def test_more_work_is_estimated_to_take_more(model: Path, text: Path, tmp_path: Path) -> None:
    calibration = {"text": str(text), "samples": 10, "length": 64}
    jobs = [
        check(model, Recipe.parse({**data, "calibration": calibration}), tmp_path / "out")
        for data in ({"weights": "int4/g16", "method": "rtn"}, {"bits": 6, "choices": ["int4/g16", "int8/g16"]})
    ]
    quick, long = (estimates.seconds(job) for job in jobs)
    assert 0 < quick < long < 3600
    base = psutil.Process().memory_info().rss
    assert all(base < estimates.memory(job) < base + (1 << 30) for job in jobs)


def test_nothing_to_quantize_costs_reading_alone_and_threads_are_restored(model: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    recipe = Recipe.parse({"weights": "keep", "embeddings": "keep", "lm_head": "keep", "method": "rtn"})
    job = check(model, recipe, tmp_path / "out")
    assert estimates.seconds(job) == 2 * job.accounting.source_bytes / estimates.READING
    estimates.seconds(check(model, Recipe.parse({"weights": "int4/g16", "method": "rtn"}), tmp_path / "out"))
    assert torch.get_num_threads() == before


def test_what_learns_a_whole_model_is_refused_where_that_is_too_large(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = {"text": str(text), "samples": 10, "length": 64}
    jobs = [
        check(
            model, Recipe.parse({"weights": "int4/g16", "calibration": calibration, "method": name}), tmp_path / "out"
        )
        for name in ("gradient_ptq", "distill")
    ]
    assert estimates._learning(jobs[1], jobs[1].items) > estimates._learning(jobs[0], jobs[0].items)
    for job in jobs:
        estimates.fits(job)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1 << 20))
    estimates.fits(jobs[0])
    with pytest.raises(RecipeError, match=r"distill learns the whole model at once.*gradient_ptq learns one block"):
        estimates.fits(jobs[1])


def test_learning_and_searching_are_counted(model: Path, text: Path, tmp_path: Path) -> None:
    calibration = {"text": str(text), "samples": 10, "length": 64}

    def job(**given: object) -> Job:
        return check(
            model, Recipe.parse({"weights": "int4/g16", "calibration": calibration, **given}), tmp_path / "out"
        )

    plain = job()
    short, long = (job(method="gradient_ptq", options={"steps": steps}) for steps in (100, 1000))
    assert estimates._learning(plain, plain.items) == 0 < estimates._learning(short, short.items)
    assert estimates._learning(long, long.items) == 10 * estimates._learning(short, short.items)
    assert estimates.memory(long) >= estimates.memory(plain)
    tokens = plain.windows.tokens  # type: ignore[union-attr]
    smoothed, scaled = (estimates._walks(job(transforms=[name]), 1000) for name in ("smooth", "awq"))
    assert smoothed == 4 * 1000 * tokens < scaled
    assert estimates._walks(plain, 1000) == 0


def test_walks_that_are_learned_are_counted_once_for_every_start(model: Path, text: Path, tmp_path: Path) -> None:
    def work(**options: object) -> float:
        step = {"name": "block_affine", "options": {"block": 4, "shared": 2, "act": "int4/g4", **options}}
        given = {
            "weights": "int4/g16",
            "transforms": [step],
            "calibration": {"text": str(text), "samples": 10, "length": 64},
        }
        job = check(model, Recipe.parse(given), tmp_path / "out")
        return estimates._learning(job, job.items)

    assert work() == 2 * work(start="hadamard") == 4 * work(start="hadamard", steps=100) > 0
    assert work(steps=0) == 0
