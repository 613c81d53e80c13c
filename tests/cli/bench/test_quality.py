"""Points are compared at no more bytes than the other has; logits from elsewhere score as an executor's; names are checked."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anybit.cli.bench import quality
from anybit.cli.bench.quality import OURS, Given, Point, compare, draw, selected, verdicts
from anybit.errors import AnybitError
from anybit.models.evaluation import divergence, perplexity
from anybit.reproduce.subject import Subject


def point(library: str, bits: float, kl: float) -> Point:
    return Point(library, f"{bits}", bits, 10.0, kl, 0.01, 0.9)


def test_a_verdict_takes_the_best_of_ours_that_is_no_larger() -> None:
    points = [
        point("other", 4.0, 0.1), point("other", 4.5, 0.2), point("other", 3.0, 0.3), point("other", 2.0, 0.9),
        point(OURS, 3.9, 0.05), point(OURS, 3.5, 0.08), point(OURS, 4.1, 0.01), point(OURS, 3.0, 0.6),
    ]  # fmt: skip
    found = {each.theirs.bits: each for each in verdicts(points)}
    assert set(found) == {4.0, 3.0, 2.0}  # 4.5 bits of theirs are worse than their own 4
    assert found[4.0].ours == points[4] and found[4.0].ratio == pytest.approx(0.5)
    assert found[3.0].ratio == pytest.approx(2.0)
    assert found[2.0].ours is None and found[2.0].ratio is None


def test_formats_that_came_to_the_same_are_one_point() -> None:
    points = [point("other", 4.0, 0.1), replace(point("other", 4.0, 0.1), format="B"), point("other", 3.0, 0.1)]
    assert [(p.format, p.bits) for p in quality.merged(points)] == [("4.0, B", 4.0), ("3.0", 3.0)]
    assert quality.reasons({"a": "no", "b": "yes", "c": "no"}) == {"no": ["a", "c"], "yes": ["b"]}


def test_logits_from_elsewhere_score_like_the_executor_that_made_them(tiny_folder) -> None:
    from anybit import models
    from anybit.models import TorchExecutor

    model = models.load(tiny_folder)
    windows = [[256, 5, 9, 200, 31], [256, 7, 7, 1]]
    executor = TorchExecutor(model.plan, model.weights)
    parts = []
    for window in windows:
        executor.reset()
        parts.append(executor.forward(window[:-1], "all"))
    given = Given(windows, torch.cat(parts))
    assert perplexity(given, windows).nll == pytest.approx(perplexity(executor, windows).nll)
    assert divergence(given, executor, windows).kl == pytest.approx(0, abs=1e-9)
    assert torch.equal(given.forward(windows[1][:-1]), parts[1][-1:])
    with pytest.raises(AnybitError, match="6 rows of logits for 7 tokens"):
        Given(windows, torch.cat(parts)[:6])


def test_names_are_checked() -> None:
    assert (
        selected("all") == tuple(quality.LIBRARIES)
        and selected(None) == ()
        and selected("hqq, quanto") == ("hqq", "quanto")
    )
    assert quality.selected_methods(None) == tuple(quality.METHODS) and quality.selected_methods(
        "gptq, distill,gptq"
    ) == ("gptq", "distill")
    with pytest.raises(AnybitError, match="unknown method 'obq'; there are rtn, gptq"):
        quality.selected_methods("obq")
    with pytest.raises(AnybitError, match="unknown peer 'gguf'"):
        selected("hqq,gguf")
    with pytest.raises(AnybitError, match=r"\.png or \.svg; got a\.gif"):
        quality.check_picture(Path("a.gif"))


PEER = """
import json, sys
import numpy as np
print(json.dumps({"engine": "fake", "version": "1", "formats": ["half", "broken"]}), flush=True)
job = json.loads(sys.argv[1])
windows = json.load(open(job["windows"]))
assert set(np.load(job["importance"])), "importance of every layer"
for line in sys.stdin:
    asked = json.loads(line)
    if asked["format"] == "broken":
        print(json.dumps({"lacks": "out of order"}), flush=True)
        continue
    np.save(asked["out"], np.zeros((sum(len(w) - 1 for w in windows), %d), np.float32))
    print(json.dumps({"bytes": 4000}), flush=True)
"""


def test_ours_and_a_peer_side_by_side(tiny_folder, tmp_path, monkeypatch) -> None:
    from anybit import models

    text = "the quick brown fox jumps over the lazy dog " * 60
    (tmp_path / "calibration.txt").write_text(text, encoding="utf-8")
    subject = Subject(models.load(tiny_folder).path, tmp_path / "calibration.txt", text, 150, 4)
    vocabulary = subject.model.plan.vocab_size
    (tmp_path / "peer.py").write_text(PEER % vocabulary)
    monkeypatch.setattr(quality, "command", lambda library: [sys.executable, str(tmp_path / "peer.py")])
    monkeypatch.setattr(quality, "METHODS", {"rtn": {"method": "rtn"}})
    found = compare(subject, ["fake"], [1.2, 6.0], tmp_path / "work", 1)
    assert found.versions == {"fake": "1"} and found.absent["fake broken"] == "out of order"
    assert "a budget of 1.2 bits" in found.absent["anybit rtn, 1.2 bits"]
    theirs, ours = found.points
    assert theirs.bits == pytest.approx(8 * 4000 / subject.model.parameters)
    assert theirs.perplexity == pytest.approx(vocabulary, rel=1e-6)  # all logits equal
    assert ours.library == OURS and ours.bits <= 6.0 and ours.kl < theirs.kl
    assert json.loads(json.dumps(found.as_dict()))["verdicts"][0]["theirs"]["library"] == "fake"
    (tmp_path / "peer.py").write_text((PEER % vocabulary).replace("4000", "5000"))
    again = compare(subject, ["fake"], [6.0], tmp_path / "work", 1)
    assert again.points[0] == theirs  # kept, not asked again
    subject.windows = [subject.windows[0][:-1]]
    assert compare(subject, ["fake"], [6.0], tmp_path / "work", 1).points[0].bits > theirs.bits
    draw(tmp_path / "picture.svg", [found])
    assert "bits a weight" in (tmp_path / "picture.svg").read_text() or (tmp_path / "picture.svg").stat().st_size > 1000
    assert np.load(tmp_path / "work" / "importance.npz").files
