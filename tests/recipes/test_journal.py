import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anybit.errors import RecipeError
from anybit.formats import TensorFormat
from anybit.quantize import rtn
from anybit.recipes import journal
from anybit.recipes.journal import Journal

JOB = {"model": "m", "recipe": "r"}


def test_pieces_survive_closing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    q = rtn.quantize(torch.randn(4, 24), TensorFormat.parse("int3/g16+z")).qtensor
    with Journal(out, JOB) as pages:
        assert not pages.has("a/b") and not pages.has_weight("w")
        pages.put("a/b", {"x": torch.arange(3)}, [1.5, None])
        pages.put_weight("w", q, {"method": "rtn"})
    with Journal(out, JOB) as pages:
        tensors, note = pages.get("a/b")
        assert torch.equal(tensors["x"], torch.arange(3)) and note == [1.5, None]
        again, report = pages.get_weight("w")
        assert report == {"method": "rtn"} == pages.weight_report("w")
        assert again.format == q.format and again.shape == q.shape
        for part, value in q.tensors().items():
            assert torch.equal(again.tensors()[part], value)
        assert pages.count() == journal.count(out) == 2
        assert journal.nbytes(out) > 0
        pages.remove()
    assert not journal.folder(out).exists() and journal.count(out) == 0


def test_another_job_is_refused_and_restart_clears(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Journal(out, JOB) as pages:
        pages.put("a", {}, 1)
    with pytest.raises(RecipeError, match=r"differs in recipe;.*--overwrite"):
        Journal(out, {"model": "m", "recipe": "other"})
    with Journal(out, JOB) as pages:
        assert pages.has("a")
    with Journal(out, {"model": "m", "recipe": "other"}, restart=True) as pages:
        assert not pages.has("a")


def test_a_job_of_another_version_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for earlier, words in (({"anybit": "0.0.9"}, r"0\.0\.9 of anybit left"), ({}, "an earlier version of anybit left")):
        with Journal(out, {**JOB, **earlier}, restart=True):
            pass
        with pytest.raises(RecipeError, match=words + r" unfinished, and this is 0\.1\.0;.*--overwrite"):
            Journal(out, {**JOB, "anybit": "0.1.0"})


def test_leftovers_of_a_kill_before_the_header_are_cleared(tmp_path: Path) -> None:
    folder = journal.folder(tmp_path / "out")
    folder.mkdir()
    (folder / "job.tmp").write_text("{")
    (folder / "old.safetensors").write_text("x")
    with Journal(tmp_path / "out", JOB) as pages:
        assert pages.count() == 0


def test_a_damaged_header_is_another_job(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", JOB):
        pass
    (journal.folder(tmp_path / "out") / "job.json").write_text("{")
    with pytest.raises(RecipeError, match="differs in model, recipe, version"):
        Journal(tmp_path / "out", JOB)


def test_damaged_pieces_are_found(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", JOB) as pages:
        pages.put("a", {"x": torch.ones(4)}, 1)
        pages.put("b", {"x": torch.ones(4)}, 1)
        a, b = pages._file("a"), pages._file("b")
        b.write_bytes(a.read_bytes())
        with pytest.raises(RecipeError, match="holds 'a' in place of 'b'"):
            pages.get("b")
        a.write_bytes(a.read_bytes()[:-3])
        with pytest.raises(RecipeError, match="damaged"):
            pages.get("a")


HOLD = """
import sys, time
from pathlib import Path
from anybit.recipes.journal import Journal
pages = Journal(Path(sys.argv[1]), {"model": "m", "recipe": "r"})
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            with pytest.raises(RecipeError, match="another process"):
                Journal(out, JOB)
        finally:
            other.kill()
    Journal(out, JOB).close()


def test_fingerprint_depends_on_contents_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * 100)
        (tmp_path / name / "config.json").write_text("{}")
    first = journal.fingerprint(tmp_path / "a", "r", "text", 2)
    assert first == journal.fingerprint(tmp_path / "b", "r", "text", 2)
    (tmp_path / "b" / "notes.txt").write_text("no part of the model")
    assert first == journal.fingerprint(tmp_path / "b", "r", "text", 2)
    for changed in (("q", "text", 2), ("r", "texts", 2), ("r", "text", 3), ("r", None, 2)):
        assert journal.fingerprint(tmp_path / "a", *changed) != first
    (tmp_path / "b" / "model.safetensors").write_bytes(b"x" * 99 + b"y")
    assert journal.fingerprint(tmp_path / "b", "r", "text", 2)["model"] != first["model"]
    assert "threads" not in journal.fingerprint(tmp_path / "a", "r", None, None)
